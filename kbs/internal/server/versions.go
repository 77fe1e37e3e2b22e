package server

import (
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// Which version the object of a change is at, so that a change which waits for
// a second person is about what its author saw. What is not there is at 0.

func atVersion(v int64, err error) (int64, error) {
	if err == nil {
		return v, nil
	}
	if code := known(err).Code; code == fault.NotFound || code == fault.Unsupported {
		return 0, nil // a back end without versions has none to compare
	}
	return 0, err
}

func (s *Server) versionOfPolicy(r *http.Request, _ []byte) (int64, error) {
	kind, id, err := policyName(r)
	if err != nil {
		return 0, err
	}
	p, err := s.Policies.Get(r.Context(), kind, id)
	return atVersion(p.Version, err)
}

func (s *Server) versionOfResourcePolicy(r *http.Request, _ []byte) (int64, error) {
	p, err := s.Policies.Get(r.Context(), policy.Resource, policy.ResourcePolicy)
	return atVersion(p.Version, err)
}

func (s *Server) versionOfAttestationPolicy(r *http.Request, raw []byte) (int64, error) {
	b, err := parsePolicy(raw)
	if err != nil {
		return 0, err
	}
	if _, err := policy.ParseName(string(policy.Attestation), b.ID); err != nil {
		return 0, err
	}
	p, err := s.Policies.Get(r.Context(), policy.Attestation, b.ID)
	return atVersion(p.Version, err)
}

func (s *Server) versionOfRefValue(r *http.Request, _ []byte) (int64, error) {
	v, err := s.RefValues.Get(r.Context(), r.PathValue("name"))
	return atVersion(v.Version, err)
}

func (s *Server) versionOfResource(r *http.Request, _ []byte) (int64, error) {
	path, err := resourcePath(r)
	if err != nil {
		return 0, err
	}
	info, err := s.Resources.Describe(r.Context(), path)
	return atVersion(info.Version, err)
}

func (s *Server) versionOfTenant(r *http.Request, _ []byte) (int64, error) {
	rec, err := s.System.Tenants.Get(r.Context(), r.PathValue("tenant"))
	return atVersion(rec.Version, err)
}
