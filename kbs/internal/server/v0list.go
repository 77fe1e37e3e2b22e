package server

import (
	"encoding/base64"
	"net/http"
	"net/url"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// The field's protocol can write what it cannot list or delete. These calls
// have the addresses that its scheme leaves for them (kbs-protocol 2.2); lists
// are arrays of names, as the one list that it has.

// fieldPage is how many names a list has at most.
const fieldPage = 1000

// answerNames answers with a page. A Link header (RFC 8288) leads to the next.
func (s *Server) answerNames(w http.ResponseWriter, r *http.Request, path string, names []string, next string) {
	if next != "" {
		w.Header().Set("Link", "<"+base(r.Context())+path+"?after="+url.QueryEscape(next)+`>; rel="next"`)
	}
	s.answerJSON(w, http.StatusOK, typeJSON, names)
}

func (s *Server) v0ListResources(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	page, err := s.Resources.List(r.Context(), resource.Query{After: r.URL.Query().Get("after"), Limit: fieldPage})
	if err != nil {
		return err
	}
	paths := make([]string, len(page.Items))
	for i, info := range page.Items {
		paths[i] = info.Path
	}
	s.answerNames(w, r, api.PathResource, paths, page.Next)
	return nil
}

// v0Policies are the calls about one kind of policy. Each policy is named: the
// field writes its one resource policy without a name, but has no call that
// deletes it (kbs-protocol 2.2), and a name that was left out must not.
type v0Policies struct{ kind policy.Kind }

func (p v0Policies) name(r *http.Request) (string, error) {
	id := r.PathValue("id")
	_, err := policy.ParseName(string(p.kind), id)
	return id, err
}

func (p v0Policies) list(s *Server, w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.Policies.List(r.Context())
	if err != nil {
		return err
	}
	ids := []string{}
	for _, one := range all {
		if one.Kind == string(p.kind) {
			ids = append(ids, one.ID)
		}
	}
	s.answerJSON(w, http.StatusOK, typeJSON, ids)
	return nil
}

// get answers in the form in which the policy is written.
func (p v0Policies) get(s *Server, w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	id, err := p.name(r)
	if err != nil {
		return err
	}
	one, err := s.Policies.Get(r.Context(), p.kind, id)
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, policyBody{
		Type: "rego", ID: id, Policy: base64.RawURLEncoding.EncodeToString([]byte(one.Rego)),
	})
	return nil
}

func (p v0Policies) delete(s *Server, w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	id, err := p.name(r)
	if err != nil {
		return err
	}
	if err := s.Policies.Delete(r.Context(), p.kind, id, who.String(), int64(store.Any), s.policyEntry(who, api.AuditPolicyDelete)); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "", nil)
	return nil
}

func (s *Server) v0ListReferenceValues(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	page, err := s.RefValues.Page(r.Context(), "", r.URL.Query().Get("after"), fieldPage)
	if err != nil {
		return err
	}
	names := make([]string, len(page))
	for i, v := range page {
		names[i] = v.Name
	}
	next := ""
	if len(names) == fieldPage {
		next = names[fieldPage-1]
	}
	s.answerNames(w, r, api.PathReferenceValue, names, next)
	return nil
}

// valueError says which reference value is not there, in the words that the
// field's tests look for (kbs-protocol 7).
type valueError struct{ name string }

// Error is for administrators only.
func (e *valueError) Error() string {
	return "Failed to get reference_values: No reference value found for the given id: " + e.name
}

func (s *Server) v0GetReferenceValue(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	name := r.PathValue("name")
	raw, err := s.reference(r.Context(), name)
	if err != nil {
		return err
	}
	if raw == nil {
		return fault.New(fault.NotFound, &valueError{clip(name, maxClaim)})
	}
	s.answerJSON(w, http.StatusOK, typeJSON, raw)
	return nil
}

func (s *Server) v0DeleteReferenceValue(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	name := r.PathValue("name")
	e := api.AuditEntry{Kind: api.AuditRefValueDelete, Object: "refvalue/" + clip(name, maxObject)}
	if err := s.change(r.Context(), who, e, func(tx store.Tx) error { return s.RefValues.DeleteTx(tx, name, store.Any) }); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, typeJSON, nil)
	return nil
}
