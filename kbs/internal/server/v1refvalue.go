package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func (s *Server) listRefValues(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	limit, err := number(r, "limit", 0, 1, 1000)
	if err != nil {
		return err
	}
	prefix, after := r.URL.Query().Get("prefix"), r.URL.Query().Get("after")
	var all []api.RefValue
	if limit == 0 {
		all, err = s.RefValues.List(r.Context(), prefix)
	} else {
		all, err = s.RefValues.Page(r.Context(), prefix, after, int(limit))
	}
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, listed(all))
	return nil
}

func (s *Server) getRefValue(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	v, err := s.RefValues.Get(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	s.answerVersioned(w, v.Version, v)
	return nil
}

// answerVersioned answers with an object and its version as the entity tag.
func (s *Server) answerVersioned(w http.ResponseWriter, version int64, v any) {
	w.Header().Set("ETag", `"`+strconv.FormatInt(version, 10)+`"`)
	s.answerJSON(w, http.StatusOK, typeJSON, v)
}

func (s *Server) putRefValue(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var v api.RefValue
	err := exactBody(r, &v)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	if v.Name != "" && v.Name != name {
		return fault.Newf(fault.InvalidRequest, "the body names another reference value than the path")
	}
	v.Name = name
	if v.Version, err = seen(r, v.Version); err != nil {
		return err
	}
	stored, err := s.storeRefValues(r.Context(), who, []api.RefValue{v})
	if err != nil {
		return err
	}
	s.answerVersioned(w, stored[0].Version, stored[0])
	return nil
}

// storeRefValues serves both protocols. The hash of a value lets anyone who
// has it find out when it was in force.
func (s *Server) storeRefValues(ctx context.Context, who admin.Identity, values []api.RefValue) ([]api.RefValue, error) {
	if s.Remote != nil {
		return nil, errRemote("the reference values")
	}
	out := make([]api.RefValue, len(values))
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		for i, v := range values {
			v.Author = who.String()
			var err error
			if out[i], err = s.RefValues.PutTx(tx, v); err != nil {
				return err
			}
			sum := sha256.Sum256(v.Value)
			_, err = s.Audit.AppendTx(tx, api.AuditEntry{
				Kind: api.AuditRefValuePut, Decision: "change", Subject: who.String(), Object: "refvalue/" + v.Name,
				Details: map[string]string{"sha256": hex.EncodeToString(sum[:])},
			})
			if err != nil {
				return fault.Newf(fault.Internal, "append audit entry: %w", err)
			}
		}
		return nil
	})
	return out, err
}

func (s *Server) deleteRefValue(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	name := r.PathValue("name")
	e := api.AuditEntry{Kind: api.AuditRefValueDelete, Object: "refvalue/" + clip(name, maxObject)}
	return s.remove(w, r, who, e, func(tx store.Tx, want store.Version) error { return s.RefValues.DeleteTx(tx, name, want) })
}

// remove deletes an object at the version that the caller saw, if any.
func (s *Server) remove(w http.ResponseWriter, r *http.Request, who admin.Identity, e api.AuditEntry, do func(store.Tx, store.Version) error) error {
	want, err := seen(r, int64(store.Any))
	if err != nil {
		return err
	}
	if err := s.change(r.Context(), who, e, func(tx store.Tx) error { return do(tx, store.Version(want)) }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
