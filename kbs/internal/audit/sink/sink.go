// Package sink delivers the audit log to where people watch it: files, syslog,
// webhooks, OTLP receivers.
//
// The log itself is the queue. Each sink has a cursor in the store, the index
// of the first entry that it has not confirmed, so a sink that is down loses
// nothing, and costs no memory. Of several replicas the one that holds the
// cursor's lease delivers; when it dies, another takes over where it stopped.
// What was delivered and not yet confirmed is delivered again then: receivers
// tell entries apart by their index.
//
// A required sink that is too far behind closes the broker (see [Set.Behind]
// and audit.Guard).
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
)

// Event is one entry on its way out.
type Event struct {
	Entry api.AuditEntry
	Leaf  []byte // its canonical JSON
}

// Sink takes events away.
type Sink interface {
	// Deliver returns nil once the far side has the whole batch, as far as the
	// sink can know. After an error the same events come again, perhaps with
	// more after them. A batch has at least one event.
	Deliver(ctx context.Context, batch []Event) error
	// Close drops connections and files. Deliver may be called again.
	Close() error
}

// ErrTooLarge says that the far side wants fewer events at once.
var ErrTooLarge = errors.New("sink: the batch is too large for the receiver")

// retryError is a refusal that says when to come again.
type retryError struct {
	after time.Duration
	err   error
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// Log is what is delivered: audit.Log.
type Log interface {
	Authentic(ctx context.Context, from int64, limit int) ([]json.RawMessage, error)
	Archived(ctx context.Context) (audit.Archived, error)
	Size(ctx context.Context) (int64, error)
	Appended() <-chan struct{}
}

func parse(leaf json.RawMessage) (Event, error) {
	e := Event{Leaf: leaf}
	if err := json.Unmarshal(leaf, &e.Entry); err != nil {
		return Event{}, fmt.Errorf("sink: entry: %w", err)
	}
	return e, nil
}
