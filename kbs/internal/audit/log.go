package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records in the store. The hashes that entry n completes (its leaf, and each
// subtree whose last leaf it is, from the leaf up) lie together under n.
const (
	keyHead       = "audit/head"
	keyCheckpoint = "audit/checkpoint"
	prefixEntry   = "audit/entry/"
	prefixHashes  = "audit/hashes/"
)

// MaxEntry bounds the canonical JSON of one entry, in bytes.
const MaxEntry = 64 << 10

var (
	// ErrEntryTooLarge says that an entry is longer than [MaxEntry].
	ErrEntryTooLarge = errors.New("audit: entry is too large")
	// ErrRange says that an index or a size lies outside the log.
	ErrRange = errors.New("audit: outside the log")
	// ErrTampered says that the log does not agree with a checkpoint or with
	// itself.
	ErrTampered = errors.New("audit: the log was tampered with")
)

func numbered(prefix string, n int64) string { return fmt.Sprintf("%s%020d", prefix, n) }

// before is the key after which a listing starts with entry n.
func before(n int64) string {
	if n == 0 {
		return prefixEntry
	}
	return numbered(prefixEntry, n-1)
}

// head is what moves with each entry.
type head struct {
	Size int64 `json:"size"`
}

// Log is the audit log in a store. It keeps no state of its own, and is safe
// for concurrent use.
type Log struct {
	st     store.Store
	signer note.Signer
	now    func() time.Time
}

var _ Recorder = (*Log)(nil)

// Open opens the log in st, empty if there is none. The signer's name is the
// log's origin. Open refuses a log whose last entry or last checkpoint does
// not agree with its tree; [Verify] checks all the rest.
func Open(ctx context.Context, st store.Store, signer note.Signer, now func() time.Time) (*Log, error) {
	if signer == nil {
		return nil, errors.New("audit: a log needs a signing key")
	}
	l := &Log{st: st, signer: signer, now: now}
	err := st.View(ctx, func(tx store.Tx) error {
		if err := checkTail(tx); err != nil {
			return err
		}
		_, _, err := l.lastCheckpoint(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func readHead(tx store.Tx) (int64, error) {
	r, err := tx.Get(keyHead)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var h head
	if err := json.Unmarshal(r.Value, &h); err != nil || h.Size < 1 {
		return 0, fmt.Errorf("%w: the record of its size is damaged", ErrTampered)
	}
	return h.Size, nil
}

// checkTail checks that entries end where the size says, and the last one is
// the one that was hashed.
func checkTail(tx store.Tx) error {
	size, err := readHead(tx)
	if err != nil {
		return err
	}
	beyond, err := tx.List(prefixEntry, before(size), 1)
	if err != nil {
		return err
	}
	if len(beyond) != 0 {
		return fmt.Errorf("%w: there are entries beyond its size %d", ErrTampered, size)
	}
	if size == 0 {
		return nil
	}
	r, err := tx.Get(numbered(prefixEntry, size-1))
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrTampered, size-1, err)
	}
	leaf, err := hashes(tx).ReadHashes([]int64{tlog.StoredHashIndex(0, size-1)})
	if err != nil {
		return err
	}
	if tlog.RecordHash(r.Value) != leaf[0] {
		return fmt.Errorf("%w: entry %d is not the one that was appended", ErrTampered, size-1)
	}
	return nil
}

// Append appends e in a transaction of its own. When it returns, the entry is
// durable.
func (l *Log) Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	var out api.AuditEntry
	err := l.st.Update(ctx, func(tx store.Tx) (err error) {
		out, err = l.AppendTx(tx, e)
		return err
	})
	if err != nil {
		return api.AuditEntry{}, err
	}
	return out, nil
}

// AppendTx appends e within tx. The entry exists once tx has committed. The
// transaction may be of any scope of the log's store: the log lies below them.
func (l *Log) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	tx = store.Unscoped(tx)
	n, err := readHead(tx)
	if err != nil {
		return api.AuditEntry{}, err
	}
	e = valid(e)
	e.Index, e.Time = n, l.now().UTC().Truncate(time.Microsecond)
	leaf, err := jcs.Marshal(e)
	if err != nil {
		return api.AuditEntry{}, fmt.Errorf("audit: %w", err)
	}
	if len(leaf) > MaxEntry {
		return api.AuditEntry{}, fmt.Errorf("%w: %d bytes, at most %d", ErrEntryTooLarge, len(leaf), MaxEntry)
	}
	completed, err := tlog.StoredHashes(n, leaf, hashes(tx))
	if err != nil {
		return api.AuditEntry{}, fmt.Errorf("audit: %w", err)
	}
	size, err := json.Marshal(head{Size: n + 1})
	if err != nil {
		return api.AuditEntry{}, err
	}
	if _, err := tx.Put(numbered(prefixEntry, n), leaf, store.Absent); err != nil {
		return api.AuditEntry{}, fmt.Errorf("audit: entry %d: %w", n, err)
	}
	if _, err := tx.Put(numbered(prefixHashes, n), join(completed), store.Absent); err != nil {
		return api.AuditEntry{}, fmt.Errorf("audit: hashes of entry %d: %w", n, err)
	}
	if _, err := tx.Put(keyHead, size, store.Any); err != nil {
		return api.AuditEntry{}, fmt.Errorf("audit: size: %w", err)
	}
	return e, nil
}

// valid replaces bytes that are not UTF-8, so that what is returned is what is
// stored, and no guest can prevent an entry with a broken name.
func valid(e api.AuditEntry) api.AuditEntry {
	for _, s := range []*string{&e.Tenant, &e.Kind, &e.Decision, &e.Code, &e.Ticket, &e.Subject, &e.Object} {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	if e.Details != nil {
		details := make(map[string]string, len(e.Details))
		for k, v := range e.Details {
			details[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
		}
		e.Details = details
	}
	return e
}

// Size returns the number of entries.
func (l *Log) Size(ctx context.Context) (int64, error) {
	var n int64
	err := l.st.View(ctx, func(tx store.Tx) (err error) {
		n, err = readHead(tx)
		return err
	})
	return n, err
}

// Entries returns the canonical JSON of the entries from index from on, at
// most limit of them; none at or beyond the end of the log.
func (l *Log) Entries(ctx context.Context, from int64, limit int) ([]json.RawMessage, error) {
	if from < 0 {
		return nil, fmt.Errorf("%w: index %d", ErrRange, from)
	}
	var out []json.RawMessage
	err := l.st.View(ctx, func(tx store.Tx) error {
		out = nil
		size, err := readHead(tx)
		if err != nil {
			return err
		}
		records, err := tx.List(prefixEntry, before(from), limit)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Key >= numbered(prefixEntry, size) {
				break
			}
			out = append(out, r.Value)
		}
		return nil
	})
	return out, err
}

// page is how many entries All reads at once.
const page = 500

// All yields the canonical JSON of the entries below size, in order. It is
// what [Verify] wants for a checkpoint of that size.
func (l *Log) All(ctx context.Context, size int64) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		// Pages go by what was read, not by what should be there: where an
		// entry was dropped, the next one shows it.
		after, end := before(0), numbered(prefixEntry, size)
		for {
			var records []store.Record
			err := l.st.View(ctx, func(tx store.Tx) (err error) {
				records, err = tx.List(prefixEntry, after, page)
				return err
			})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, r := range records {
				if r.Key >= end || !yield(r.Value, nil) {
					return
				}
			}
			if len(records) < page {
				return
			}
			after = records[len(records)-1].Key
		}
	}
}
