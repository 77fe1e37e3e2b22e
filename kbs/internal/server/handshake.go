package server

import (
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// auth opens a handshake (kbs-protocol 3.1).
func (s *Server) auth(w http.ResponseWriter, r *http.Request) error {
	if err := s.within(r.Context(), w, s.Quotas.Sessions, opAuth, "handshakes"); err != nil {
		return err
	}
	raw, err := body(r)
	if err != nil {
		return err
	}
	opened, err := s.Handshake.Open(r.Context(), raw)
	if err != nil {
		return err
	}
	s.setCookie(w, r, opened.Cookie, opened.Expires)
	s.answerJSON(w, http.StatusOK, "application/json", opened.Challenge)
	return nil
}

// attest answers evidence with a token (kbs-protocol 3.3).
func (s *Server) attest(w http.ResponseWriter, r *http.Request) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	var id string // no cookie names no session
	if c, err := r.Cookie(api.SessionCookie); err == nil {
		id = c.Value
	}
	out, err := s.Handshake.Attest(r.Context(), id, raw)
	if err != nil {
		return err
	}
	s.setCookie(w, r, id, out.Expires)
	s.answerJSON(w, http.StatusOK, "application/json", api.AttestResponse{Token: out.Token})
	return nil
}

// setCookie sends the session id. No script, no other site and no other
// tenant's path sees it.
func (s *Server) setCookie(w http.ResponseWriter, r *http.Request, id string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{
		Name: api.SessionCookie, Value: id, Path: base(r.Context()) + api.PathPrefix, Expires: expires,
		HttpOnly: true, Secure: s.SecureCookie, SameSite: http.SameSiteStrictMode,
	})
}
