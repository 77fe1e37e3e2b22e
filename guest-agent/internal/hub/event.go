package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Events records runtime events in a register of the hardware and in the log
// that comes with evidence. Where the platform has no such register the error
// wraps [aael.ErrNotSupported].
type Events interface {
	Record(ctx context.Context, e eventlog.RuntimeEvent) error
}

// NoEvents are the events of a platform that has no register for them.
type NoEvents struct{}

// Record returns [aael.ErrNotSupported].
func (NoEvents) Record(context.Context, eventlog.RuntimeEvent) error { return aael.ErrNotSupported }

// Record records an event for a workload. Without an event log the error wraps
// [aael.ErrDisabled] or [aael.ErrNotSupported]; any other is a *fault.Fault with a
// ticket.
func (h *Hub) Record(ctx context.Context, e eventlog.RuntimeEvent) error {
	if h.events == nil {
		return aael.ErrDisabled
	}
	if err := e.Validate(); err != nil {
		return h.refuser.Refuse(ctx, ObjectEvent, e.Operation, fault.New(fault.InvalidRequest, err))
	}
	err := h.events.Record(ctx, e)
	if err == nil || errors.Is(err, aael.ErrNotSupported) {
		return err
	}
	return h.refuser.Refuse(ctx, ObjectEvent, e.Operation, fault.New(fault.Internal, err))
}

// The event of a pulled image (guest-protocol 6.6).
const (
	eventDomain    = "github.com/confidential-containers"
	eventPullImage = "PullImage"
)

// recordPull records which image was pulled, before anything of it runs. An
// image that should be recorded and cannot be is not handed out.
func (h *Hub) recordPull(ctx context.Context, ref, digest string) error {
	if h.events == nil {
		return nil
	}
	err := h.events.Record(ctx, eventlog.RuntimeEvent{Domain: eventDomain, Operation: eventPullImage, Content: pulled(ref, digest)})
	if err != nil && !errors.Is(err, aael.ErrNotSupported) {
		return fmt.Errorf("record the image: %w", err)
	}
	return nil
}

// pulled is the text that the field's agents measure, byte for byte: with a
// space after the comma, so that registers can be computed beforehand.
func pulled(ref, digest string) string {
	quote := func(s string) []byte {
		b, _ := json.Marshal(s) // a string always has a form
		return b
	}
	return fmt.Sprintf(`{"image":%s, "digest":%s}`, quote(ref), quote(digest))
}
