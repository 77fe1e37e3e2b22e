package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Limits of what a guest may report, in bytes of each text and in items.
const (
	maxRefusal  = 64 << 10
	maxObject   = 1024
	maxCause    = 4096
	maxFindings = 32
	maxWanted   = 32
	maxClaim    = 256
	maxValue    = 1024
)

// guestRefusal takes down what a guest agent refused by itself, so that the
// ticket it shows its host can be opened here. The guest is attested, but what
// it says is its own word: it is stored, never acted upon.
func (s *Server) guestRefusal(w http.ResponseWriter, r *http.Request) error {
	text, ok := bearer(r)
	if !ok {
		return fault.New(fault.TokenInvalid, errNoToken)
	}
	claims, err := s.verified(r.Context(), text)
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxRefusal)
	raw, err := body(r)
	if err != nil {
		return err
	}
	var g api.GuestRefusal
	if err := strictjson.Decode(raw, &g); err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	if err := checkRefusal(g); err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	t, err := s.Tickets.Record(context.WithoutCancel(r.Context()), api.Explanation{
		Code: g.Code, Stage: string(opGuest), Platform: platform(claims), Subject: subject(claims),
		Object: g.Object, Cause: g.Cause, Findings: g.Findings, Rule: g.Rule,
	}, api.AuditEntry{Kind: api.AuditGuestRefusal, Decision: "deny"})
	if err != nil {
		return fault.Newf(fault.Internal, "record guest refusal: %w", err)
	}
	s.answerJSON(w, http.StatusOK, "application/json", api.GuestRefusalReceipt{Ticket: string(t)})
	return nil
}

func checkRefusal(g api.GuestRefusal) error {
	if !fault.Code(g.Code).Known() {
		return fmt.Errorf("code is not in the table")
	}
	type limited struct {
		name, text string
		max        int
	}
	texts := []limited{{"object", g.Object, maxObject}, {"cause", g.Cause, maxCause}, {"rule", g.Rule, maxValue}}
	if len(g.Findings) > maxFindings {
		return fmt.Errorf("more than %d findings", maxFindings)
	}
	for _, f := range g.Findings {
		if len(f.Wanted) > maxWanted {
			return fmt.Errorf("more than %d wanted values in a finding", maxWanted)
		}
		texts = append(texts, limited{"claim", f.Claim, maxClaim}, limited{"seen", f.Seen, maxValue}, limited{"nearest", f.Nearest, maxClaim})
		for _, v := range f.Wanted {
			texts = append(texts, limited{"wanted", v, maxValue})
		}
	}
	for _, t := range texts {
		if len(t.text) > t.max {
			return fmt.Errorf("%s is longer than %d bytes", t.name, t.max)
		}
	}
	return nil
}
