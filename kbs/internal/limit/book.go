package limit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
)

// mostOpen bounds the different refusals that are remembered, of all addresses
// together, and so what callers who never attested can write between two
// flushes.
const mostOpen = 1024

// Book is a book of tickets in which the refusals of callers that nobody knows
// do not pile up. The same refusal of the same address within a minute is one
// ticket; how often it was repeated goes into the audit log when the minute is
// over, which is when the broker calls [Book.Flush]. An address with too many different ones is told to come
// later, and nothing is recorded.
//
// Refusals of callers that are known, guests with a token and administrators,
// are each recorded.
type Book struct {
	ticket.Book
	audit audit.Recorder

	mu   sync.Mutex
	open map[[sha256.Size]byte]*repeated
}

type repeated struct {
	ticket fault.Ticket
	entry  api.AuditEntry
	times  int // after the first
}

// NewBook returns a book over another. Counts go to log.
func NewBook(b ticket.Book, log audit.Recorder) *Book {
	return &Book{Book: b, audit: log, open: map[[sha256.Size]byte]*repeated{}}
}

// Record implements [ticket.Book].
func (b *Book) Record(ctx context.Context, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error) {
	if e.Subject != "" || !Client(ctx).IsValid() {
		return b.Book.Record(ctx, e, entry)
	}
	cause, err := causeOf(Client(ctx).String(), e)
	if err != nil {
		return "", err
	}
	if t, ok := b.again(cause); ok {
		return t, nil
	}
	if err := b.room(ctx); err != nil {
		return "", err
	}
	t, err := b.Book.Record(ctx, e, entry)
	if err != nil {
		return "", err
	}
	entry.Code, entry.Ticket, entry.Object = e.Code, string(t), e.Object
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[cause] = &repeated{ticket: t, entry: entry} // if two came at once, both have tickets
	return t, nil
}

// room counts the refusal of a caller, and says no if there were too many.
func (b *Book) room(ctx context.Context) error {
	if err := Fail(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) >= mostOpen {
		return fault.New(fault.TooMany, &Error{"refusals", time.Minute})
	}
	return nil
}

// causeOf is the same for two refusals that an administrator could not tell
// apart.
func causeOf(address string, e api.Explanation) ([sha256.Size]byte, error) {
	e.Ticket, e.Time, e.Audit = "", time.Time{}, 0
	raw, err := json.Marshal(e)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("ticket: %w", err)
	}
	return sha256.Sum256(append([]byte(address+"\n"), raw...)), nil
}

func (b *Book) again(cause [sha256.Size]byte) (fault.Ticket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.open[cause]
	if !ok {
		return "", false
	}
	r.times++
	return r.ticket, true
}

// Flush forgets what was remembered, and writes into the audit log how often
// each refusal was repeated.
func (b *Book) Flush(ctx context.Context) error {
	b.mu.Lock()
	all := b.open
	b.open = map[[sha256.Size]byte]*repeated{}
	b.mu.Unlock()
	var failed []error
	for _, r := range all {
		if r.times == 0 {
			continue
		}
		r.entry.Details = map[string]string{"repeated": strconv.Itoa(r.times)}
		if _, err := b.audit.Append(ctx, r.entry); err != nil {
			failed = append(failed, fmt.Errorf("count repeated refusals: %w", err))
		}
	}
	return errors.Join(failed...)
}
