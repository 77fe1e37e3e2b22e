package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// Remote is another Attestation Service. Where evidence is judged there, its
// policies and reference values are the ones in force: the field's calls that
// change them are handed on, and our own API refuses to change what would
// decide nothing.
type Remote interface {
	SetPolicy(ctx context.Context, id, rego string) error
	Register(ctx context.Context, message []byte) error
	// Query returns nil if there is no such value.
	Query(ctx context.Context, name string) (json.RawMessage, error)
}

// detailRemote marks the audit entry of a change that was handed on.
const detailRemote = "attestation_service"

// errRemote is the answer to a change that would decide nothing.
func errRemote(what string) error {
	return fault.Newf(fault.Conflict, "%s in force are those of the attestation service that this broker asks: change them there, or through /kbs/v0", what)
}

func (s *Server) remotePolicy(w http.ResponseWriter, r *http.Request, who admin.Identity, b policyBody) error {
	if _, err := policy.ParseName(string(policy.Attestation), b.ID); err != nil {
		return err
	}
	e := api.AuditEntry{
		Kind: api.AuditPolicyPut, Object: "policy/" + policy.Ref(policy.Attestation, b.ID, 0),
		Details: map[string]string{"handed_on": detailRemote},
	}
	if err := s.changeElsewhere(r.Context(), who, e, func() error { return s.Remote.SetPolicy(r.Context(), b.ID, b.Policy) }); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "", nil)
	return nil
}

func (s *Server) remoteReferenceValue(w http.ResponseWriter, r *http.Request, who admin.Identity, message []byte) error {
	e := api.AuditEntry{Kind: api.AuditRefValuePut, Object: "refvalue/", Details: map[string]string{"handed_on": detailRemote}}
	if err := s.changeElsewhere(r.Context(), who, e, func() error { return s.Remote.Register(r.Context(), message) }); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "application/json", nil)
	return nil
}

// reference returns a value by name from where it is in force.
func (s *Server) reference(ctx context.Context, name string) (json.RawMessage, error) {
	if s.Remote != nil {
		return s.Remote.Query(ctx, name)
	}
	return s.RefValues.Query(ctx, name)
}
