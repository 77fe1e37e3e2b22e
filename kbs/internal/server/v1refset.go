package server

import (
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func (s *Server) listRefSets(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	limit, err := number(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	all, err := s.RefValues.RefSets(r.Context(), r.URL.Query().Get("after"), int(limit))
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, listed(all))
	return nil
}

func (s *Server) getRefSet(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	set, err := s.RefValues.RefSet(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	s.answerVersioned(w, set.Version, set)
	return nil
}

// registerRefSet takes a document: who vouches for it is found out here, and
// stands in the log together with the document's hash.
func (s *Server) registerRefSet(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	want, err := seen(r, int64(store.Any))
	if err != nil {
		return err
	}
	doc, err := s.RefValues.Judge(r.Context(), raw, r.URL.Query().Get("unsigned-reason"))
	if err != nil {
		return err
	}
	set := doc.Set()
	details := map[string]string{"sha256": set.SHA256, "names": clip(strings.Join(set.Names, " "), maxCause)}
	if set.Signer != "" {
		details["signer"] = set.Signer
	} else {
		details["unsigned_reason"] = set.Reason
	}
	e := api.AuditEntry{Kind: api.AuditRefSetPut, Object: "refset/" + set.ID, Details: details}
	err = s.change(r.Context(), who, e, func(tx store.Tx) (err error) {
		set, err = s.RefValues.RegisterTx(tx, doc, who.String(), store.Version(want))
		return err
	})
	if err != nil {
		return err
	}
	s.answerVersioned(w, set.Version, set)
	return nil
}

func (s *Server) withdrawRefSet(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	id := r.PathValue("id")
	e := api.AuditEntry{Kind: api.AuditRefSetDelete, Object: "refset/" + clip(id, maxObject)}
	return s.remove(w, r, who, e, func(tx store.Tx, want store.Version) error { return s.RefValues.WithdrawTx(tx, id, want) })
}

func (s *Server) listSigners(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.RefValues.Signers(r.Context())
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, listed(all))
	return nil
}

func (s *Server) getSigner(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	signer, err := s.RefValues.Signer(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	s.answerVersioned(w, signer.Version, signer)
	return nil
}

func (s *Server) putSigner(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var v api.Signer
	err := exactBody(r, &v)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	if v.Name != "" && v.Name != name {
		return fault.Newf(fault.InvalidRequest, "the body names another signer than the path")
	}
	v.Name, v.Author = name, who.String()
	if v.Version, err = seen(r, v.Version); err != nil {
		return err
	}
	e := api.AuditEntry{
		Kind: api.AuditSignerPut, Object: "signer/" + clip(name, maxObject),
		Details: map[string]string{"prefixes": clip(strings.Join(v.Prefixes, " "), maxCause)},
	}
	err = s.change(r.Context(), who, e, func(tx store.Tx) (err error) {
		v, err = s.RefValues.PutSignerTx(tx, v)
		return err
	})
	if err != nil {
		return err
	}
	s.answerVersioned(w, v.Version, v)
	return nil
}

func (s *Server) deleteSigner(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	name := r.PathValue("name")
	e := api.AuditEntry{Kind: api.AuditSignerDelete, Object: "signer/" + clip(name, maxObject)}
	return s.remove(w, r, who, e, func(tx store.Tx, want store.Version) error { return s.RefValues.DeleteSignerTx(tx, name, want) })
}
