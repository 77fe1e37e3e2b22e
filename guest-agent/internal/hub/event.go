package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
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
	if e.Domain == eventOwnDomain || e.Domain == eventDomain && e.Operation == eventPullImage {
		return h.refuser.Refuse(ctx, ObjectEvent, e.Operation, fault.Newf(fault.Forbidden, "events %s %s are the agent's alone", e.Domain, e.Operation))
	}
	size := int64(len(e.Domain) + len(e.Operation) + len(e.Content) + eventOverhead)
	if h.recorded.Add(size) > maxWorkloadEvents {
		h.recorded.Add(-size)
		return h.refuser.Refuse(ctx, ObjectEvent, e.Operation, fault.Newf(fault.TooMany, "workloads have recorded %d bytes of events, all that they may", maxWorkloadEvents))
	}
	err := h.events.Record(ctx, e)
	if err == nil {
		return nil
	}
	h.recorded.Add(-size)
	if errors.Is(err, aael.ErrNotSupported) {
		return err
	}
	return h.refuser.Refuse(ctx, ObjectEvent, e.Operation, fault.New(fault.Internal, err))
}

// What workloads may add to the log, in bytes: the rest is the agent's own. A log
// that one container could fill would let no other be made, for that is recorded, and
// be too long for evidence.
const (
	maxWorkloadEvents = aael.MaxSize / 4
	eventOverhead     = 256 // of an event in the log, at most
)

// RecordOwn records what the agent itself did. Without an event log it does
// nothing. Errors are *fault.Fault with a ticket.
func (h *Hub) RecordOwn(ctx context.Context, operation, content string) error {
	if h.events == nil {
		return nil
	}
	e := eventlog.RuntimeEvent{Domain: eventOwnDomain, Operation: operation, Content: content}
	err := e.Validate()
	if err == nil {
		err = h.events.Record(ctx, e)
	}
	if errors.Is(err, aael.ErrNotSupported) {
		return nil
	}
	return h.refuser.Refuse(ctx, ObjectEvent, operation, err)
}

// The events of a pulled image: the field's (guest-protocol 6.6), and ours that
// says why it may run.
const (
	eventDomain    = "github.com/confidential-containers"
	eventPullImage = "PullImage"

	eventOwnDomain    = "cc.vouchsafe"
	eventImageVerdict = "ImageVerdict"
)

// recordPull records which image was pulled and how it was judged, before
// anything of it runs: the whole verdict in the journal, and its digest in the
// register, from where evidence carries it to the broker's policies. An image
// that should be recorded and cannot be is not handed out.
func (h *Hub) recordPull(ctx context.Context, ref string, v trust.Verdict) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record the verdict: %w", err)
	}
	if err := h.refuser.journalVerdict(raw); err != nil {
		return fmt.Errorf("record the verdict: %w", err)
	}
	if h.events == nil {
		return nil
	}
	for _, e := range []eventlog.RuntimeEvent{
		{Domain: eventDomain, Operation: eventPullImage, Content: pulled(ref, v.Digest)},
		{Domain: eventOwnDomain, Operation: eventImageVerdict, Content: judged(v, raw)},
	} {
		if err := h.events.Record(ctx, e); err != nil && !errors.Is(err, aael.ErrNotSupported) {
			return fmt.Errorf("record the image: %w", err)
		}
	}
	return nil
}

// judged is the short form of a verdict whose JSON is raw: enough for a policy
// at the broker to insist on a signer, and to recognise the whole.
func judged(v trust.Verdict, raw []byte) string {
	b, _ := json.Marshal(struct { // texts and flags always have a form
		Image   string   `json:"image"`   // digest of the platform's manifest
		Verdict string   `json:"verdict"` // digest of the verdict in the journal
		Waived  bool     `json:"waived"`  // no signature was required
		Signers []string `json:"signers"`
	}{v.Digest, verdictDigest(raw), v.Waived, append([]string{}, v.Signers...)})
	return string(b)
}

func verdictDigest(raw []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)) }

// pulled is the text that the field's agents measure, byte for byte: with a
// space after the comma, so that registers can be computed beforehand.
func pulled(ref, of string) string {
	quote := func(s string) []byte {
		b, _ := json.Marshal(s) // a string always has a form
		return b
	}
	return fmt.Sprintf(`{"image":%s, "digest":%s}`, quote(ref), quote(of))
}
