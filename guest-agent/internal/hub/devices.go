package hub

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// AdditionalEvidence returns the evidence of the devices that are attached to
// the guest over at most 64 bytes of runtime data: JSON {"<platform>": ...}, or
// nothing if there are none (guest-protocol 4.17). Errors are *fault.Fault with
// a ticket.
func (h *Hub) AdditionalEvidence(ctx context.Context, runtimeData []byte) ([]byte, error) {
	text, err := h.additionalEvidence(ctx, runtimeData)
	if err != nil {
		return nil, h.refuser.Refuse(ctx, ObjectEvidence, "", err)
	}
	return text, nil
}

func (h *Hub) additionalEvidence(ctx context.Context, runtimeData []byte) ([]byte, error) {
	if h.attester == nil {
		return nil, fault.New(fault.Unavailable, errors.New("this guest has no attester"))
	}
	if _, err := measure.NewReportData(runtimeData); err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	if len(h.devices) == 0 {
		return nil, nil
	}
	all := map[measure.Platform]json.RawMessage{}
	for _, d := range h.devices {
		ev, err := measure.EvidenceOver(ctx, d, runtimeData)
		if err != nil {
			return nil, err
		}
		all[d.Platform()] = ev.Data
	}
	return json.Marshal(all)
}

// AdditionalPlatforms names the devices that evidence can be had of.
func (h *Hub) AdditionalPlatforms() []measure.Platform {
	var all []measure.Platform
	for _, d := range h.devices {
		all = append(all, d.Platform())
	}
	return all
}
