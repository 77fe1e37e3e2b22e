package server_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

func (s *stage) role(r admin.Role) string {
	s.t.Helper()
	text, err := broker.IssueAdminToken(s.cfg.StateDir, "test", r, time.Hour, s.clock.now())
	if err != nil {
		s.t.Fatal(err)
	}
	return "Authorization: Bearer " + string(text.Reveal())
}

// Every admin route, the least role that opens it, and a request that is good
// enough to get past authorisation.
var adminRoutes = []struct {
	method, path, body string
	least              admin.Role
	v0                 bool // on both listeners
}{
	{"GET", "/v1/policies", "", admin.Viewer, false},
	{"GET", "/v1/policies/resource/resource-policy", "", admin.Viewer, false},
	{"PUT", "/v1/policies/resource/other", `{"version":-1,"rego":"package policy"}`, admin.Owner, false},
	{"DELETE", "/v1/policies/resource/other", "", admin.Owner, false},
	{"GET", "/v1/refvalues", "", admin.Viewer, false},
	{"PUT", "/v1/refvalues/a/b", `{"version":-1,"value":[1]}`, admin.Operator, false},
	{"GET", "/v1/refvalues/a/b", "", admin.Viewer, false},
	{"DELETE", "/v1/refvalues/a/b", "", admin.Operator, false},
	{"GET", "/v1/resources?prefix=prod/", "", admin.Viewer, false},
	{"PUT", "/v1/resources/a/b/c", "x", admin.Operator, false},
	{"DELETE", "/v1/resources/a/b/c", "", admin.Operator, false},
	{"GET", "/v1/image-policies/a/b/c", "", admin.Operator, false},
	{"GET", "/v1/keys/token", "", admin.Viewer, false},
	{"POST", "/v1/keys/token/rotate", `{"now":true}`, admin.Owner, false},
	{"GET", "/v1/tickets?limit=5", "", admin.Viewer, false},
	{"GET", "/v1/audit/entries?from=0&limit=2", "", admin.Auditor, false},
	{"GET", "/v1/audit/checkpoint", "", admin.Auditor, false},
	{"GET", "/v1/audit/key", "", admin.Auditor, false},
	{"GET", "/v1/audit/keys", "", admin.Auditor, false},
	{"GET", "/v1/audit/inclusion?index=0&size=2", "", admin.Auditor, false},
	{"GET", "/v1/audit/consistency?old=1&new=2", "", admin.Auditor, false},
	{"PUT", "/v1/tenants/x", `{"version":-1}`, admin.Owner, false},
	{"GET", "/v1/tenants", "", admin.Viewer, false},
	{"GET", "/v1/tenants/x", "", admin.Viewer, false},
	{"GET", "/v1/revocations", "", admin.Auditor, false},
	{"POST", "/kbs/v0/resource/a/b/c", "x", admin.Operator, true},
	{"DELETE", "/kbs/v0/resource/a/b/c", "", admin.Operator, true},
	{"POST", "/kbs/v0/reference-value", `{"version":"0.1.0","type":"sample","payload":"eyJhIjpbMV19"}`, admin.Operator, true},
	{"GET", "/kbs/v0/reference-value/a", "", admin.Viewer, true},
	{"POST", "/kbs/v0/resource-policy", `{"policy":"cGFja2FnZSBwb2xpY3k"}`, admin.Owner, true},
	{"GET", "/kbs/v0/resource-policy", "", admin.Viewer, true},
	{"POST", "/kbs/v0/attestation-policy", `{"type":"rego","policy_id":"default_cpu","policy":"cGFja2FnZSBwb2xpY3k"}`, admin.Owner, true},
}

func TestRoles(t *testing.T) {
	s := newStage(t)
	tokens := map[admin.Role]string{}
	for _, role := range admin.Roles() {
		tokens[role] = s.role(role)
	}
	for _, r := range adminRoutes {
		name := r.method + " " + r.path
		for header, want := range map[string]int{"X-None: 1": 401, "Authorization: Bearer a.b.c": 401, "Authorization: Basic eDp5": 401} {
			if a := s.send(r.method, s.adminURL+r.path, []byte(r.body), header); a.status != want || a.info(t).Code != "unauthenticated" || a.info(t).Ticket != "" {
				t.Errorf("%s with %s: %d %s", name, header, a.status, a.body)
			}
		}
		for _, role := range admin.Roles() {
			a := s.send(r.method, s.adminURL+r.path, []byte(r.body), tokens[role])
			if allowed := a.status/100 == 2 || a.status == 404; allowed != role.Includes(r.least) || (!allowed && a.status != 403) {
				t.Errorf("%s as %s: %d %s", name, role, a.status, a.body)
			}
			if a.status == 403 {
				if x := s.explain(a.info(t).Ticket); x.Stage != "admin" || x.Subject != "admin:test" {
					t.Errorf("%s as %s: explanation %+v", name, role, x)
				}
			}
		}
		// Our own API is not on the guests' listener; the field's is on both.
		a := s.send(r.method, s.guestURL+r.path, []byte(r.body), tokens[admin.Owner])
		switch {
		case !r.v0 && a.status != 404:
			t.Errorf("%s on the guests' listener: %d %s", name, a.status, a.body)
		case r.v0 && a.status/100 != 2 && a.status != 404:
			t.Errorf("%s on the guests' listener: %d %s", name, a.status, a.body)
		}
		if a := s.send(r.method, s.guestURL+r.path, []byte(r.body), "X-None: 1"); a.status != 401 && a.status != 404 {
			t.Errorf("%s on the guests' listener without a token: %d %s", name, a.status, a.body)
		}
	}
	for _, path := range []string{api.PathAuth, api.PathAttest, api.PathGuestRefusals} {
		if a := s.send(http.MethodPost, s.adminURL+path, []byte(`{}`)); a.status != 404 {
			t.Errorf("%s on the administrators' listener: %d", path, a.status)
		}
	}
	s.entries()
}

func TestAdminTokenExpires(t *testing.T) {
	s := newStage(t)
	s.clock.advance(12*time.Hour + time.Second)
	if a := s.admin(http.MethodGet, api.PathPolicies, nil); a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestPolicyAPI(t *testing.T) {
	s := newStage(t)
	const path = api.PathPolicies + "/resource/mine"
	put := func(p api.Policy) answer {
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return s.admin(http.MethodPut, path, raw)
	}
	a := put(api.Policy{Version: 0, Rego: "package policy", Author: "somebody else"})
	var p api.Policy
	if err := json.Unmarshal(a.body, &p); a.status != 200 || err != nil || p.Version != 1 || p.Author != "admin:bootstrap" || p.Kind != "resource" || p.ID != "mine" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		policy api.Policy
		status int
		detail string
	}{
		"exists":        {api.Policy{Version: 0, Rego: "package policy"}, 409, "conflict"},
		"stale":         {api.Policy{Version: 9, Rego: "package policy"}, 409, "conflict"},
		"syntax":        {api.Policy{Version: 1, Rego: "package policy\n\nallow if x\n"}, 400, "3:10"},
		"another name":  {api.Policy{Version: 1, ID: "other", Rego: "package policy"}, 400, "names another"},
		"another kind":  {api.Policy{Version: 1, Kind: "attestation", Rego: "package policy"}, 400, "names another"},
		"another world": {api.Policy{Version: 1, Rego: "package other"}, 400, "package"},
	} {
		a := put(c.policy)
		var problem api.Problem
		if err := json.Unmarshal(a.body, &problem); err != nil || a.status != c.status || problem.Status != c.status || !strings.Contains(problem.Detail, c.detail) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for path, want := range map[string]int{
		api.PathPolicies + "/other/x": 400, api.PathPolicies + "/resource/a%40b": 400, api.PathPolicies + "/resource/none": 404,
	} {
		if a := s.admin(http.MethodGet, path, nil); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	var list struct{ Items []api.Policy }
	if err := json.Unmarshal(s.must(http.MethodGet, api.PathPolicies, nil), &list); err != nil || len(list.Items) != len(policy.Defaults())+1 || list.Items[1].Rego != "" {
		t.Errorf("%+v: %v", list, err)
	}
	s.must(http.MethodDelete, path, nil)
	e := s.entries()
	last := e[len(e)-1]
	if last.Kind != "policy.delete" || last.Object != "policy/resource/mine@1" || last.Subject != "admin:bootstrap" || last.Details["sha256"] == "" {
		t.Errorf("entry %+v", last)
	}
}

func TestRefValueAPI(t *testing.T) {
	s := newStage(t)
	const path = api.PathRefValues + "/team/value"
	s.putJSON(path, api.RefValue{Version: 0, Value: json.RawMessage(`{"a":[1,"x"],"b":true}`)})
	var v api.RefValue
	if err := json.Unmarshal(s.must(http.MethodGet, path, nil), &v); err != nil || v.Version != 1 || string(v.Value) != `{"a":[1,"x"],"b":true}` ||
		v.Author != "admin:bootstrap" || !v.Expires.After(time.Now().AddDate(0, 11, 0)) {
		t.Fatalf("%+v: %v", v, err)
	}
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"exists":     {path, `{"version":0,"value":1}`, 409},
		"null":       {path, `{"version":-1,"value":null}`, 400},
		"no value":   {path, `{"version":-1}`, 400},
		"expired":    {path, `{"version":-1,"value":1,"expires":"2020-01-01T00:00:00Z"}`, 400},
		"bad name":   {api.PathRefValues + "/a:b", `{"version":-1,"value":1}`, 400},
		"other name": {path, `{"name":"x","version":-1,"value":1}`, 400},
		"duplicate":  {path, `{"version":-1,"value":1,"value":2}`, 400},
		"not json":   {path, `value`, 400},
	} {
		if a := s.admin(http.MethodPut, c.path, []byte(c.body)); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := s.admin(http.MethodDelete, api.PathRefValues+"/none", nil); a.status != 404 {
		t.Errorf("delete of nothing: %d", a.status)
	}
}

// The field's client: message in, the bare value out.
func TestV0ReferenceValues(t *testing.T) {
	s := newStage(t)
	payload := base64.StdEncoding.EncodeToString([]byte(`{"launch_digest":["abcde"],"svn":1}`))
	a := s.admin(http.MethodPost, api.PathReferenceValue, []byte(`{"version":"0.1.0","type":"sample","payload":"`+payload+`"}`))
	if a.status != 200 || len(a.body) != 0 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := s.must(http.MethodGet, api.PathReferenceValue+"/launch_digest", nil); string(got) != `["abcde"]` {
		t.Errorf("value %s", got)
	}
	before := len(s.entries())
	bad := base64.StdEncoding.EncodeToString([]byte(`{"good":1,"bad:name":2}`))
	if a := s.admin(http.MethodPost, api.PathReferenceValue, []byte(`{"type":"sample","payload":"`+bad+`"}`)); a.status != 400 {
		t.Errorf("half a message: %d %s", a.status, a.body)
	}
	if a := s.admin(http.MethodGet, api.PathReferenceValue+"/good", nil); a.status != 404 || len(s.entries()) != before {
		t.Errorf("half a message was kept: %d %s", a.status, a.body)
	}
	if a := s.admin(http.MethodPost, api.PathReferenceValue, []byte(`{"type":"corim","payload":""}`)); a.status != 400 {
		t.Errorf("corim: %d %s", a.status, a.body)
	}
}

func TestV0Policies(t *testing.T) {
	s := newStage(t)
	b64 := base64.RawURLEncoding.EncodeToString
	text := "package policy\n\nimport rego.v1\n\ndefault allow := false\n"
	if a := s.admin(http.MethodPost, api.PathResourcePolicy, []byte(`{"policy":"`+b64([]byte(text))+`"}`)); a.status != 200 || len(a.body) != 0 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := s.must(http.MethodGet, api.PathResourcePolicy, nil); string(got) != `["resource-policy"]` {
		t.Errorf("ids %s", got)
	}
	var p api.Policy
	if err := json.Unmarshal(s.must(http.MethodGet, api.PathPolicies+"/resource/resource-policy", nil), &p); err != nil || p.Rego != text || p.Version != 2 {
		t.Errorf("%+v: %v", p, err)
	}
	for name, c := range map[string]struct{ body, variant, detail string }{
		"syntax":     {`{"policy_id":"default_cpu","policy":"` + b64([]byte("package policy\n\nallow if {")) + `"}`, "AttestationError", "Set Attestation Policy failed: 3:"},
		"not base64": {`{"policy_id":"default_cpu","policy":"***"}`, "SerdeError", ""},
		"bad id":     {`{"policy_id":"../x","policy":"` + b64([]byte("package policy")) + `"}`, "SerdeError", ""},
	} {
		a := s.admin(http.MethodPost, api.PathAttestationPolicy, []byte(c.body))
		e := a.info(t)
		if a.status != 400 || e.Type != api.ErrorTypePrefix+c.variant || !strings.Contains(e.Detail, c.detail) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// A secret goes in and only a guest gets it out.
func TestResourcesAreWriteOnly(t *testing.T) {
	s := newStage(t)
	var list struct{ Items []api.ResourceInfo }
	raw := s.must(http.MethodGet, api.PathResources, nil)
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Items) != 1 || list.Items[0].Path != resourcePath || list.Items[0].Size != len(s.value) {
		t.Fatalf("%s: %v", raw, err)
	}
	owner := "Authorization: Bearer " + s.adminToken
	for _, url := range []string{s.adminURL + api.PathResources + "/" + resourcePath, s.adminURL + api.PathResource + "/" + resourcePath, s.guestURL + api.PathResource + "/" + resourcePath} {
		a := s.send(http.MethodGet, url, nil, owner)
		described := url == s.adminURL+api.PathResources+"/"+resourcePath
		if (a.status/100 == 2) != described || strings.Contains(string(a.body), s.value) {
			t.Errorf("%s: %d %s", url, a.status, a.body)
		}
	}
}

// A change that cannot be audited is not made.
func TestNoChangeWithoutEntry(t *testing.T) {
	s := newStage(t)
	d := s.b.Deps()
	d.Audit = deaf{}
	srv := httptest.NewServer(server.New(d).Admin())
	defer srv.Close()
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "/v1/resources/a/b/c", "x"},
		{"PUT", "/v1/refvalues/x", `{"version":-1,"value":1}`},
		{"PUT", "/v1/policies/resource/x", `{"version":-1,"rego":"package policy"}`},
		{"DELETE", "/v1/resources/" + resourcePath, ""},
	} {
		a := s.send(c.method, srv.URL+c.path, []byte(c.body), "Authorization: Bearer "+s.adminToken)
		if a.status != 500 {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
	}
	for path, want := range map[string]int{"/v1/refvalues/x": 404, "/v1/policies/resource/x": 404} {
		if a := s.admin(http.MethodGet, path, nil); a.status != want {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	var list struct{ Items []api.ResourceInfo }
	if err := json.Unmarshal(s.must(http.MethodGet, api.PathResources, nil), &list); err != nil || len(list.Items) != 1 {
		t.Errorf("%+v: %v", list, err)
	}
}

func TestAuditParameters(t *testing.T) {
	s := newStage(t)
	for query, want := range map[string]int{
		"/entries?from=-1": 400, "/entries?limit=0": 400, "/entries?limit=1001": 400, "/entries?from=x": 400,
		"/inclusion": 400, "/inclusion?index=5&size=5": 400, "/inclusion?index=0&size=100000": 400,
		"/consistency?old=0&new=1": 400, "/consistency?old=3&new=2": 400, "/consistency?old=1&new=1": 200,
	} {
		if a := s.admin(http.MethodGet, api.PathAudit+query, nil); a.status != want {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	for _, bad := range []string{"x", "7qk2-m9td", "0000-0000-0000"} {
		if a := s.admin(http.MethodGet, api.PathTickets+"/"+bad, nil); a.status != 400 {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
	if a := s.admin(http.MethodGet, api.PathTickets+"/0000-0000", nil); a.status != 404 {
		t.Errorf("unknown ticket: %d", a.status)
	}
}

func TestSecurityHeaders(t *testing.T) {
	s := newStage(t)
	for _, url := range []string{s.guestURL + "/healthz", s.guestURL + "/none", s.adminURL + api.PathPolicies} {
		h := s.send(http.MethodGet, url, nil).header
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %v", url, h)
		}
	}
}

// The old key hands over to the new one, and whoever knows the old one follows.
func TestAuditKeyRotation(t *testing.T) {
	s := newStage(t)
	key := func() string { return string(s.must(http.MethodGet, api.PathAudit+"/key", nil)) }
	before := key()
	trust, err := audit.NewTrust(before)
	if err != nil {
		t.Fatal(err)
	}
	path, body := api.PathAudit+"/key/rotation", []byte(`{"current":"`+before+`"}`)
	if a := s.send(http.MethodPost, s.adminURL+path, body, s.role(admin.Operator)); a.status != http.StatusForbidden {
		t.Errorf("an operator: %d %s", a.status, a.body)
	}
	var keys api.AuditKeys
	if err := json.Unmarshal(s.must(http.MethodPost, path, body), &keys); err != nil || keys.Current == before || keys.Current != key() {
		t.Fatalf("%+v, %v; was %s", keys, err, before)
	}
	if a := s.admin(http.MethodPost, path, body); a.status != http.StatusConflict {
		t.Errorf("twice: %d %s", a.status, a.body)
	}
	if trust, err = trust.Follow(keys.Handovers); err != nil || trust.Current() != keys.Current {
		t.Fatalf("%v, %v", trust.Current(), err)
	}
	c, err := audit.ParseCheckpoint(s.must(http.MethodGet, api.PathAudit+"/checkpoint", nil), trust)
	all := s.entries()
	if e := all[c.Size-1]; err != nil || e.Kind != "audit.key.rotate" || e.Subject != "admin:bootstrap" || audit.HandoverOf(e) != keys.Handovers[0] {
		t.Errorf("%+v: %v", e, err)
	}
}
