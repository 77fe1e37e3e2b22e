package limit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
)

// How many different refusals are remembered, and so recorded, between two
// flushes.
const (
	mostOpen  = 1024    // of callers that nobody knows, of all addresses together
	mostKnown = 4 << 10 // of callers that are known, beyond the first of each
	mostOfOne = 256     // of one of these
)

// Book is a book of tickets in which refusals do not pile up. The same refusal of
// the same caller within a minute is one ticket; how often it was repeated goes
// into the audit log when the minute is over, which is when the broker calls
// [Book.Flush]. A caller with too many different ones is told to come later, and
// nothing is recorded.
//
// A caller is the guest or administrator that the refusal names, and otherwise an
// address. Refusals of what the broker does by itself are each recorded.
type Book struct {
	ticket.Book
	audit audit.Recorder

	mu   sync.Mutex
	open refusals
}

// refusals are those of one window.
type refusals struct {
	strangers map[cause]*repeated
	known     map[cause]*repeated
	of        map[string]int // of each known caller
	more      int            // of those, beyond each one's first
}

// A cause is the same for two refusals that an administrator could not tell
// apart.
type cause [sha256.Size]byte

type repeated struct {
	ticket fault.Ticket
	entry  api.AuditEntry
	times  int // after the first
}

func nothing() refusals {
	return refusals{strangers: map[cause]*repeated{}, known: map[cause]*repeated{}, of: map[string]int{}}
}

// NewBook returns a book over another. Counts go to log.
func NewBook(b ticket.Book, log audit.Recorder) *Book {
	return &Book{Book: b, audit: log, open: nothing()}
}

// Record implements [ticket.Book].
func (b *Book) Record(ctx context.Context, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error) {
	stranger := e.Subject == ""
	from := ""
	if stranger {
		if !Client(ctx).IsValid() {
			return b.Book.Record(ctx, e, entry)
		}
		from = Client(ctx).String()
	}
	c, err := causeOf(from, e)
	if err != nil {
		return "", err
	}
	if t, ok := b.again(stranger, c); ok {
		return t, nil
	}
	if stranger {
		err = b.room(ctx)
	} else {
		err = b.share(e.Subject)
	}
	if err != nil {
		return "", err
	}
	t, err := b.Book.Record(ctx, e, entry)
	if err != nil {
		return "", err
	}
	entry.Code, entry.Ticket, entry.Subject, entry.Object = e.Code, string(t), e.Subject, e.Object
	b.mu.Lock()
	defer b.mu.Unlock()
	b.side(stranger)[c] = &repeated{ticket: t, entry: entry} // if two came at once, both have tickets
	return t, nil
}

// side is where such refusals are remembered; the lock must be held.
func (b *Book) side(stranger bool) map[cause]*repeated {
	if stranger {
		return b.open.strangers
	}
	return b.open.known
}

var errRefusals = &Error{"refusals", time.Minute}

// room counts the refusal of a caller that nobody knows, and says no if there
// were too many.
func (b *Book) room(ctx context.Context) error {
	if err := Fail(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open.strangers) >= mostOpen {
		return fault.New(fault.TooMany, errRefusals)
	}
	return nil
}

// share counts the refusal of a caller that is known. It says no if that caller
// had too many, or, when all together had too many, if it had one at all: those
// who fill the book keep no other's first refusal out of it.
func (b *Book) share(subject string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	had := b.open.of[subject]
	if had >= mostOfOne || had > 0 && b.open.more >= mostKnown {
		return fault.New(fault.TooMany, errRefusals)
	}
	if had > 0 {
		b.open.more++
	}
	b.open.of[subject] = had + 1
	return nil
}

func causeOf(address string, e api.Explanation) (cause, error) {
	e.Ticket, e.Time, e.Audit = "", time.Time{}, 0
	raw, err := json.Marshal(e)
	if err != nil {
		return cause{}, fmt.Errorf("ticket: %w", err)
	}
	return sha256.Sum256(append([]byte(address+"\n"), raw...)), nil
}

func (b *Book) again(stranger bool, c cause) (fault.Ticket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.side(stranger)[c]
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
	b.open = nothing()
	b.mu.Unlock()
	var failed []error
	for _, r := range slices.Concat(slices.Collect(maps.Values(all.strangers)), slices.Collect(maps.Values(all.known))) {
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
