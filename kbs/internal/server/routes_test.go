package server_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

var changeForm = regexp.MustCompile(`^[a-z]+\.[a-z]+$`)

// A row says all that is enforced and published, or it is no row.
func TestRows(t *testing.T) {
	ids := map[string]bool{}
	for _, r := range server.Routes() {
		if r.ID == "" || ids[r.ID] || r.Summary == "" || strings.HasSuffix(r.Summary, ".") || r.On == 0 {
			t.Errorf("%s: id %q (must be unique), summary %q, listeners %b", r.Pattern, r.ID, r.Summary, r.On)
		}
		ids[r.ID] = true
		method, _, _ := strings.Cut(r.Pattern, " ")
		for _, b := range append(r.Answers, server.Answer{Body: r.Request}) {
			if strings.Contains(b.Type, "json") && b.Of == nil && !strings.HasPrefix(r.ID, "v0") {
				t.Errorf("%s: a JSON body without a Go type has no schema", r.Pattern)
			}
		}
		if (method == http.MethodPut || method == http.MethodPost) && r.Request.Type == "" {
			t.Errorf("%s: no request is described", r.Pattern)
		}
		if len(r.Answers) == 0 && !strings.HasSuffix(r.Pattern, "{path...}") {
			t.Errorf("%s: no success is described", r.Pattern)
		}
		if _, err := admin.ParseRole(string(r.Access)); err != nil && r.Access != server.Public && r.Access != server.Attested && r.Access != server.Known {
			t.Errorf("%s: access %q", r.Pattern, r.Access)
		}
		asks := r.Access == server.Public || r.Access == server.Attested || r.Access == server.Known || r.ID == "replayPolicy" || r.ID == "appraise" || r.ID == "approve" || r.ID == "revokeGuest"
		if method != http.MethodGet && method != "" && !asks && !changeForm.MatchString(r.Change) {
			t.Errorf("%s: what an administrator changes has a name such as policy.put, by which a tenant can want a second person; this has %q", r.Pattern, r.Change)
		}
		for _, c := range r.AllCodes() {
			if !c.Known() {
				t.Errorf("%s: code %s is not in the table", r.Pattern, c)
			}
		}
	}
}

// Every row for guests wants a token, and every row for administrators a
// credential, whatever its handler does.
func TestRowsAreGuarded(t *testing.T) {
	s := newStage(t)
	fill := strings.NewReplacer("{repo}", "a", "{type}", "b", "{tag}", "c", "{kind}", "resource", "{id}", "x", "{name...}", "n", "{ticket}", "0000-0000", "{path...}", "x")
	for _, r := range server.Routes() {
		method, path, ok := strings.Cut(fill.Replace(r.Pattern), " ")
		if !ok || r.Access == server.Public {
			continue
		}
		for bit, base := range map[server.Listener]string{server.OnGuest: s.guestURL, server.OnAdmin: s.adminURL} {
			if r.On&bit == 0 {
				continue
			}
			a := s.send(method, base+path, []byte(`{}`))
			if code := fault.Code(a.info(t).Code); a.status != 401 || (code != fault.Unauthenticated && code != fault.TokenInvalid) {
				t.Errorf("%s without a credential: %d %s", r.Pattern, a.status, a.body)
			}
		}
	}
}

// What a broker serves is what is published.
func TestDocumentIsServed(t *testing.T) {
	s := newStage(t)
	a := s.send(http.MethodGet, s.adminURL+"/openapi.json", nil)
	if a.status != http.StatusOK || string(a.body) != string(server.Document()) {
		t.Errorf("%d %.100s", a.status, a.body)
	}
	if a := s.send(http.MethodGet, s.guestURL+"/openapi.json", nil); a.status != http.StatusNotFound {
		t.Errorf("on the guests' listener: %d", a.status)
	}
}
