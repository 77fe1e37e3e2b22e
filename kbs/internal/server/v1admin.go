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
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/strictjson"
)

// items is the form of every list of /v1.
type items[T any] struct {
	Items []T `json:"items"`
}

func listed[T any](all []T) items[T] {
	if all == nil {
		all = []T{} // an empty list is [], not null
	}
	return items[T]{all}
}

func (s *Server) listRefValues(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.RefValues.List(r.Context(), r.URL.Query().Get("prefix"))
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", listed(all))
	return nil
}

func (s *Server) getRefValue(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	v, err := s.RefValues.Get(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", v)
	return nil
}

func (s *Server) putRefValue(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	var v api.RefValue
	if err := strictjson.Decode(raw, &v); err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	name := r.PathValue("name")
	if v.Name != "" && v.Name != name {
		return fault.Newf(fault.InvalidRequest, "the body names another reference value than the path")
	}
	v.Name = name
	stored, err := s.storeRefValues(r.Context(), who, []api.RefValue{v})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", stored[0])
	return nil
}

// storeRefValues serves both protocols. The hash of a value lets anyone who
// has it find out when it was in force.
func (s *Server) storeRefValues(ctx context.Context, who admin.Identity, values []api.RefValue) ([]api.RefValue, error) {
	out := make([]api.RefValue, len(values))
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		for i, v := range values {
			v.Author = who.String()
			var err error
			if out[i], err = s.RefValues.PutTx(tx, v); err != nil {
				return err
			}
			sum := sha256.Sum256(out[i].Value)
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
	err := s.change(r.Context(), who, e, func(tx store.Tx) error { return s.RefValues.DeleteTx(tx, name) })
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) listTickets(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	limit, err := number(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	all, err := s.Tickets.List(r.Context(), int(limit))
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", listed(all))
	return nil
}

func (s *Server) getTicket(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	t, err := fault.ParseTicket(r.PathValue("ticket"))
	if err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	x, err := s.Tickets.Explain(r.Context(), t)
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", x)
	return nil
}

// number reads a query parameter, absent meaning the given value.
func number(r *http.Request, name string, absent, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fault.Newf(fault.InvalidRequest, "%s must be a number from %d to %d", name, least, most)
	}
	return n, nil
}
