package server_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func retryAfter(t testing.TB, a answer) int {
	t.Helper()
	n, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || n < 1 {
		t.Errorf("%d answers with Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
	return n
}

// What one address may do without showing who it is has an end, in the form of
// each protocol, and none of it reaches the store.
func TestRateLimits(t *testing.T) {
	s := newStage(t)
	s.stop()
	s.cfg.Limits.AuthPerSecond, s.cfg.Limits.AttestPerSecond, s.cfg.Limits.FailuresPerSecond, s.cfg.Limits.Burst = 1, 1, 1, 3
	s.start()
	before := len(s.entries())
	for _, path := range []string{api.PathAuth, api.PathAttest} {
		var last answer
		for range 5 {
			last = s.send(http.MethodPost, s.guestURL+path, []byte(`{"version":"9.9.9","tee":"snp","extra-params":""}`))
		}
		if e := last.info(t); last.status != http.StatusTooManyRequests || e.Code != "too_many_requests" || e.Ticket != "" || !strings.HasPrefix(e.Type, api.ErrorTypePrefix) {
			t.Errorf("%s: %d %s", path, last.status, last.body)
		}
		retryAfter(t, last)
	}
	for range 5 {
		if a := s.send(http.MethodGet, s.adminURL+api.PathPolicies, nil, "Authorization: Bearer x.y.z"); a.status == http.StatusTooManyRequests {
			retryAfter(t, a)
			if !strings.Contains(a.header.Get("Content-Type"), "problem+json") {
				t.Errorf("%v", a.header)
			}
		} else if a.status != http.StatusUnauthorized {
			t.Errorf("a forged credential: %d %s", a.status, a.body)
		}
	}
	if a := s.send(http.MethodGet, s.adminURL+api.PathPolicies, nil, "Authorization: Bearer x.y.z"); a.status != http.StatusTooManyRequests {
		t.Errorf("many forged credentials: %d %s", a.status, a.body)
	}
	// Whoever has a credential is not held up by those who have none.
	if added := len(s.entries()) - before; added > 4 {
		t.Errorf("16 refused requests made %d audit entries", added)
	}
	if got := s.scrape()[`kbs_shed_requests_total{reason="rate_auth"}`]; got != "2" {
		t.Errorf("%s requests were shed", got)
	}
}

// The same refusal again and again is one ticket, and a number in the log.
func TestRefusalsDoNotPileUp(t *testing.T) {
	s := newStage(t)
	before := len(s.entries())
	tickets := map[string]int{}
	for range 20 {
		a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil)
		if a.status != http.StatusUnauthorized {
			t.Fatalf("%d %s", a.status, a.body)
		}
		tickets[a.info(t).Ticket]++
	}
	if len(tickets) != 1 || len(s.entries()) != before+1 {
		t.Errorf("tickets %v, %d entries", tickets, len(s.entries())-before)
	}
	s.stop()
	s.start()
	for _, e := range s.entries() {
		if e.Details["repeated"] == "19" && tickets[e.Ticket] == 20 && e.Kind == "release" && e.Decision == "deny" {
			return
		}
	}
	t.Errorf("nothing in the log says how often: %+v", s.entries())
}

// Evidence that nobody had time to look at is not spent: the same answer is
// good a moment later.
func TestShedEvidenceMayComeAgain(t *testing.T) {
	s := newStage(t)
	s.stop()
	s.cfg.Limits.AttestConcurrency, s.cfg.Limits.AttestQueue = 1, 0
	s.cfg.Limits.AuthPerSecond, s.cfg.Limits.AttestPerSecond = 0, 0
	s.start()
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	type try struct {
		h *handshake
		m api.Attestation
		a answer
	}
	for range 50 {
		tries := make([]try, 24)
		for i := range tries {
			h := s.auth(sim)
			tries[i] = try{h: h, m: h.message(h.nonce)}
		}
		var wg sync.WaitGroup
		for i := range tries {
			wg.Go(func() { tries[i].a = tries[i].h.attest(tries[i].m) })
		}
		wg.Wait()
		for _, x := range tries {
			switch x.a.status {
			case http.StatusOK:
			case http.StatusServiceUnavailable:
				retryAfter(t, x.a)
				if e := x.a.info(t); e.Code != "unavailable" || e.Ticket != "" {
					t.Errorf("%s", x.a.body)
				}
				if again := x.h.attest(x.m); again.status != http.StatusOK {
					t.Errorf("again: %d %s", again.status, again.body)
				}
				return
			default:
				t.Fatalf("%d %s", x.a.status, x.a.body)
			}
		}
	}
	t.Error("50 times 24 guests at once, and none was turned away by a gate for one")
}

// Explanations of denials run one at a time here. Those that get no turn are
// denials like the others, with a ticket that says so, and releases wait for
// none of them.
func TestDenialsWaitForTheirExplanation(t *testing.T) {
	s := newStage(t)
	s.stop()
	s.cfg.Limits.AttestConcurrency, s.cfg.Limits.AttestQueue = 1, 0
	s.start()
	s.know()
	s.acceptLab()
	good := "Authorization: Bearer " + s.auth(guest(t, "lab", "agent 1")).token()
	strange := "Authorization: Bearer " + s.auth(guest(t, "lab", "agent 2")).token()
	const denials, releases = 24, 4
	for range 50 {
		answers := make([]answer, denials+releases)
		var wg sync.WaitGroup
		for i := range answers {
			who := strange
			if i >= denials {
				who = good
			}
			wg.Go(func() {
				answers[i] = s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, who)
			})
		}
		wg.Wait()
		explained, left := 0, 0
		for i, a := range answers {
			if i >= denials {
				if a.status != http.StatusOK {
					t.Errorf("a release among denials: %d %s", a.status, a.body)
				}
				continue
			}
			e := a.info(t)
			if a.status != http.StatusForbidden || e.Code != "policy_denied" {
				t.Fatalf("%d %s", a.status, a.body)
			}
			s.discreet(a.body)
			x := s.explain(e.Ticket)
			switch {
			case !strings.HasPrefix(x.Policy, "resource/") && !strings.HasPrefix(x.Policy, "attestation/") || x.Code != "policy_denied":
				t.Errorf("%+v", x)
			case strings.Contains(x.Cause, "no time to explain"):
				left++
			case len(x.Findings) > 0 && x.Rule != "":
				explained++
			default:
				t.Errorf("neither explained nor left out: %+v", x)
			}
		}
		if explained == 0 {
			t.Errorf("none of %d denials was explained", denials)
		}
		if left > 0 {
			if got := s.scrape()[`kbs_shed_requests_total{reason="explanation"}`]; got != strconv.Itoa(left) {
				t.Errorf("%d explanations were left out, and %s were counted", left, got)
			}
			return
		}
	}
	t.Error("50 times 24 denials at once, and all were explained at a gate for one")
}
