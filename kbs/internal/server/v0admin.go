package server

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// The field's admin answers are empty texts of this odd type (kbs-protocol
// 2.2).
const plainType = "text/xml"

// policyBody is that of both policy endpoints (kbs-protocol 7).
type policyBody struct {
	Type   string `json:"type,omitempty"` // "rego", and ignored
	ID     string `json:"policy_id"`
	Policy string `json:"policy"` // base64url without padding
}

func readPolicy(r *http.Request) (policyBody, error) {
	raw, err := body(r)
	if err != nil {
		return policyBody{}, err
	}
	return parsePolicy(raw)
}

func parsePolicy(raw []byte) (policyBody, error) {
	var b policyBody
	if err := strictjson.Decode(raw, &b); err != nil {
		return policyBody{}, fault.New(fault.InvalidRequest, err)
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(b.Policy, "="))
	if err != nil || !utf8.Valid(text) {
		return policyBody{}, fault.Newf(fault.InvalidRequest, "policy is not base64url of UTF-8")
	}
	b.Policy = string(text)
	return b, nil
}

func (s *Server) v0PutResourcePolicy(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	b, err := readPolicy(r)
	if err != nil {
		return err
	}
	return s.v0StorePolicy(w, r, who, api.Policy{Kind: string(policy.Resource), ID: policy.ResourcePolicy, Rego: b.Policy})
}

func (s *Server) v0PutAttestationPolicy(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	b, err := readPolicy(r)
	if err != nil {
		return err
	}
	if s.Remote != nil {
		return s.remotePolicy(w, r, who, b)
	}
	err = s.v0StorePolicy(w, r, who, api.Policy{Kind: string(policy.Attestation), ID: b.ID, Rego: b.Policy})
	if syntax, ok := errors.AsType[*policy.SyntaxError](err); ok {
		return fault.Newf(fault.InvalidRequest, "%w: %w", errSetPolicy, syntax)
	}
	return err
}

// v0StorePolicy overwrites: the field's protocol knows no versions.
func (s *Server) v0StorePolicy(w http.ResponseWriter, r *http.Request, who admin.Identity, p api.Policy) error {
	p.Version, p.Author = -1, who.String()
	if _, err := s.Policies.Put(r.Context(), p, s.policyEntry(who, api.AuditPolicyPut)); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "", nil)
	return nil
}

// v0PutReferenceValue takes an RVPS message (kbs-protocol 12.1): all of its
// values or none.
func (s *Server) v0PutReferenceValue(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	if s.Remote != nil {
		return s.remoteReferenceValue(w, r, who, raw)
	}
	values, err := refvalue.ParseRVPSMessage(raw)
	if err != nil {
		return err
	}
	if _, err := s.storeRefValues(r.Context(), who, values); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "application/json", nil)
	return nil
}
