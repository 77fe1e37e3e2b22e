package server

import (
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
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
	all, err := s.Tickets.Groups(r.Context(), int(limit))
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
