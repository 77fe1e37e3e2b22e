package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// MaxEntry bounds the canonical JSON of one entry, in bytes.
const MaxEntry = 64 << 10

// maxIndex is where JSON numbers (RFC 8785 section 3.2.2.3) end being exact.
const maxIndex = 1 << 53

var (
	// ErrEntryTooLarge says that an entry is longer than [MaxEntry].
	ErrEntryTooLarge = errors.New("audit: entry is too large")
	// ErrRange says that an index or a size lies outside the log.
	ErrRange = errors.New("audit: outside the log")
	// ErrTampered says that the log does not agree with a checkpoint or with
	// itself.
	ErrTampered = errors.New("audit: the log was tampered with")
)

// Log is the audit log in a store. It is safe for concurrent use.
type Log struct {
	st     store.Store
	keeper *keeper
	mac    secret.Bytes // authenticates records
	now    func() time.Time
	// seen is the largest size that this process knows to be durable: a log
	// that was cut is found out before it is signed again.
	seen atomic.Int64
	// next is where the next entry probably belongs: it saves a listing. The
	// transaction has the last word.
	next atomic.Int64
	// wake tells that something may have been appended; see [Log.Appended].
	wake chan struct{}
}

var _ Recorder = (*Log)(nil)

// Open opens the log in st, which must not be a scope, and makes its keys in
// the ring where there are none. It refuses a log whose newest entry or last
// checkpoint is not what this ring's keys wrote; [Verify] checks all the rest.
func Open(ctx context.Context, st store.Store, ring Ring, now func() time.Time) (*Log, error) {
	mac, err := ring.LoadOrCreate(ctx, keyRecords, func() (secret.Bytes, error) { return secret.Random(32), nil })
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l := &Log{st: st, keeper: &keeper{ring: ring}, mac: mac, now: now, wake: make(chan struct{}, 1)}
	err = l.withKeys(ctx, func(k *keys) error {
		_, err := l.kept(ctx, k)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// saw notes a size that is durable.
func (l *Log) saw(size int64) {
	for {
		have := l.seen.Load()
		if size <= have || l.seen.CompareAndSwap(have, size) {
			return
		}
	}
}

// grown checks that the log has not become shorter than it was known to be
// before the transaction began.
func grown(end tip, before int64) error {
	if end.size < before {
		return fmt.Errorf("%w: it has %d entries, and had %d before", ErrTampered, end.size, before)
	}
	return nil
}

// Appended returns a channel that is readable some time after an entry was
// appended in this process. It is a hint: the transaction may have failed, and
// other replicas give none.
func (l *Log) Appended() <-chan struct{} { return l.wake }

// Append appends e in a transaction of its own. When it returns, the entry is
// durable.
func (l *Log) Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	var out api.AuditEntry
	before := l.seen.Load()
	err := l.st.Update(ctx, func(tx store.Tx) (err error) {
		if out, err = l.AppendTx(tx, e); err == nil {
			err = grown(tip{size: out.Index}, before)
		}
		return err
	})
	if err != nil {
		return api.AuditEntry{}, err
	}
	l.saw(out.Index + 1)
	return out, nil
}

// AppendTx appends e within tx. The entry exists once tx has committed. The
// transaction may be of any scope of the log's store: the log lies below them.
func (l *Log) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	tx = store.Unscoped(tx)
	makeValid(&e)
	e.Time = l.now().UTC().Truncate(time.Microsecond)
	end, err := l.expected(tx)
	if err == nil {
		err = l.put(tx, end, &e)
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) { // it does not end there
		if end, err = readTip(tx, l.mac.Reveal()); err == nil {
			err = l.put(tx, end, &e)
		}
	}
	if err != nil {
		return api.AuditEntry{}, err
	}
	l.next.Store(e.Index + 1)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return e, nil
}

// expected returns the end of the log where it probably is; store.ErrNotFound
// if it is not there.
func (l *Log) expected(tx store.Tx) (tip, error) {
	found, err := tx.Get(entryKey(max(0, l.next.Load()-1)))
	if err != nil {
		return tip{}, err
	}
	if r, err := parseRecord(found); err == nil && len(r.leaf) == 0 {
		return tip{}, store.ErrNotFound // archived, so not the last
	}
	return endingWith(found, l.mac.Reveal())
}

// put appends e after end; store.ErrConflict if the log goes on there.
func (l *Log) put(tx store.Tx, end tip, e *api.AuditEntry) error {
	if end.size >= maxIndex {
		return fmt.Errorf("%w: it is full", ErrRange)
	}
	e.Index = end.size
	leaf := appendCanonical(make([]byte, 0, 512), e)
	if len(leaf) > MaxEntry {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrEntryTooLarge, len(leaf), MaxEntry)
	}
	if _, err := tx.Put(entryKey(e.Index), newRecord(end, leaf).sealed(l.mac.Reveal()), store.Absent); err != nil {
		return fmt.Errorf("audit: entry %d: %w", e.Index, err)
	}
	return nil
}

// makeValid replaces bytes that are not UTF-8, so that what is returned is what
// is stored, and no guest can prevent an entry with a broken name.
func makeValid(e *api.AuditEntry) {
	for _, s := range []*string{&e.Tenant, &e.Decision, &e.Code, &e.Ticket, &e.Subject, &e.Object} {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	e.Kind = api.AuditKind(strings.ToValidUTF8(string(e.Kind), "\uFFFD"))
	if e.Details == nil {
		return
	}
	details := make(map[string]string, len(e.Details))
	for k, v := range e.Details {
		details[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
	}
	e.Details = details
}
