package server

import (
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

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

func (s *Server) listTicketGroups(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	limit, err := number(r, "limit", 100, 1, 500)
	if err != nil {
		return err
	}
	silenced := r.URL.Query().Get("silenced")
	if silenced != "" && silenced != "true" && silenced != "false" {
		return fault.Newf(fault.InvalidRequest, "silenced is true or false")
	}
	all, err := s.Tickets.Groups(r.Context(), int(limit), silenced == "true")
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, listed(all))
	return nil
}

func (s *Server) getTicketGroup(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	g, err := s.Tickets.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, g)
	return nil
}

func (s *Server) silenceTicketGroup(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var in api.Silence
	if err := exactBody(r, &in); err != nil {
		return err
	}
	in.Author = who.String()
	id := r.PathValue("id")
	e := api.AuditEntry{
		Kind: api.AuditTicketSilence, Object: "ticketgroup/" + clip(id, maxObject),
		Details: map[string]string{"reason": in.Reason, "until": in.Until.UTC().Format(time.RFC3339)},
	}
	var done api.Silence
	err := s.change(r.Context(), who, e, func(tx store.Tx) (err error) {
		done, err = s.Tickets.SilenceTx(tx, id, in)
		return err
	})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, done)
	return nil
}

func (s *Server) unsilenceTicketGroup(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	id := r.PathValue("id")
	e := api.AuditEntry{Kind: api.AuditTicketUnsilence, Object: "ticketgroup/" + clip(id, maxObject)}
	if err := s.change(r.Context(), who, e, func(tx store.Tx) error { return s.Tickets.EndSilenceTx(tx, id) }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
