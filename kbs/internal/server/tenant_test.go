package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

// token is an admin token for some tenants.
func (s *stage) token(subject string, role admin.Role, tenants ...string) string {
	s.t.Helper()
	text, err := broker.IssueToken(s.cfg.StateDir, admin.Token{
		Grant: admin.Grant{Role: role, Tenants: tenants}, Subject: subject, Lifetime: time.Hour,
	}, s.clock.now())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text.Reveal())
}

// in is the stage as a tenant sees it: its addresses, its owner, and a
// resource with a value of its own.
func (s *stage) in(name string, hosts ...string) *stage {
	s.t.Helper()
	s.putJSON(api.PathTenants+"/"+name, api.Tenant{Hosts: hosts})
	u := *s
	u.guestURL, u.adminURL = s.guestURL+api.PathTenant+name, s.adminURL+api.PathTenant+name
	u.adminToken = s.token("owner-of-"+name, admin.Owner, name)
	u.value = "value-of-" + name
	u.know()
	u.acceptLab()
	u.must(http.MethodPut, api.PathResources+"/"+resourcePath, []byte(u.value))
	return &u
}

// A tenant's guests attest to it and get its secrets: by path, and by host.
func TestATenantServes(t *testing.T) {
	s := newStage(t)
	a := s.in("a", "a.example")
	value, err := a.client(guest(t, "lab", "agent 1")).Resource(t.Context(), resourceURI)
	if err != nil || string(value.Reveal()) != a.value {
		t.Fatalf("%v", err)
	}
	h := a.auth(guest(t, "lab", "agent 1"))
	if !strings.HasPrefix(h.cookie, api.SessionCookie+"=") {
		t.Fatal(h.cookie)
	}
	set := a.send(http.MethodPost, a.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"snp","extra-params":""}`)).header.Get("Set-Cookie")
	if !strings.Contains(set, "Path=/t/a/kbs/v0") {
		t.Errorf("the cookie goes to other tenants: %s", set)
	}
	token := h.token()
	byHost := s.raw("GET", s.guestURL, api.PathResource+"/"+resourcePath, "a.example", "Authorization: Bearer "+token)
	if byHost.status != http.StatusOK || strings.Contains(string(byHost.body), a.value) {
		t.Errorf("by host: %d %s", byHost.status, byHost.body)
	}
	for _, e := range s.entries() {
		if (e.Subject == "admin:owner-of-a" || e.Kind == api.AuditRelease) && e.Tenant != "a" {
			t.Errorf("entry without its tenant: %+v", e)
		}
	}
}

// raw sends a request whose target goes out exactly as it is given.
func (s *stage) raw(method, base, target, host string, headers ...string) answer {
	s.t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		s.t.Fatal(err)
	}
	req := (&http.Request{Method: method, URL: &url.URL{Scheme: u.Scheme, Host: u.Host, Opaque: target}, Host: host, Header: http.Header{}}).WithContext(s.t.Context())
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	one := &http.Transport{TLSClientConfig: tlsRoots(s.roots)} // HTTP/1.1 sends what it is told
	defer one.CloseIdleConnections()
	resp, err := one.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, raw}
}

// view is all that an owner of a tenant can read of it.
func (s *stage) view() string {
	s.t.Helper()
	var all bytes.Buffer
	for _, path := range []string{
		api.PathPolicies, api.PathPolicies + "/resource/resource-policy", api.PathRefValues, api.PathResources, api.PathTokenKeys,
	} {
		all.Write(s.must(http.MethodGet, path, nil))
	}
	return all.String()
}

// Every route of the table, called across the border with all that one tenant
// can have: its owner's token, its guest's token and cookie. A route that is
// new and that this test cannot cross with makes it fail.
func TestBorder(t *testing.T) {
	s := newStage(t)
	a, b := s.in("a", "a.example"), s.in("b", "b.example")
	h := a.auth(guest(t, "lab", "agent 1"))
	guestToken := h.token()
	open := a.auth(guest(t, "lab", "agent 1")) // a handshake that is half done
	before, home := b.view(), s.view()

	fill := strings.NewReplacer("{repo}", "prod", "{type}", "keys", "{tag}", "disk-1", "{kind}", "resource", "{id}", "resource-policy", "{id...}", "resource-policy",
		"{name...}", "snp_launch_measurement", "{name}", "x", "{version}", "1", "{ticket}", "0000-0000", "{tenant}", "b", "{path...}", "x", "{approval}", "x")
	public := map[string]bool{ // what everybody may see of every tenant
		"keySet": true, "discovery": true, "healthz": true, "livez": true, "readyz": true, "startupz": true, "openapi": true, "absent": true, "plugin": true, "metrics": true,
	}
	targets := map[string]*stage{"b": b, "default": s}
	for _, r := range server.Routes() {
		method, path, ok := strings.Cut(fill.Replace(r.Pattern), " ")
		if !ok {
			continue // for any method: what is absent
		}
		if strings.Contains(path, "{") {
			t.Errorf("%s: say what goes into its path", r.Pattern)
		}
		for name, to := range targets {
			for bit, base := range map[server.Listener]string{server.OnGuest: to.guestURL, server.OnAdmin: to.adminURL} {
				if r.On&bit == 0 || public[r.ID] {
					continue
				}
				var got answer
				switch {
				case r.Access == server.Public && r.ID == "auth":
					continue // opens a handshake with who was asked
				case r.Access == server.Public && r.ID == "attest":
					raw, err := json.Marshal(open.message(open.nonce))
					if err != nil {
						t.Fatal(err)
					}
					got = s.send(method, base+path, raw, "Cookie: "+open.cookie)
				case r.Access == server.Public:
					t.Errorf("%s: how would one cross the border with it?", r.Pattern)
					continue
				case r.Access == server.Attested:
					for _, header := range []string{"Authorization: Bearer " + guestToken, "Cookie: " + h.cookie} {
						if got = s.send(method, base+path, []byte(`{"code":"internal"}`), header); got.status != http.StatusUnauthorized {
							t.Errorf("%s to %s with %.12s: %d %s", r.Pattern, name, header, got.status, got.body)
						}
					}
				default:
					got = s.send(method, base+path+"?confirm=b", []byte(`{"version":-1,"rego":"package policy","value":[1]}`), "Authorization: Bearer "+a.adminToken)
				}
				if missing := r.System && name == "b"; got.status != http.StatusUnauthorized && (!missing || got.status != http.StatusNotFound) {
					t.Errorf("%s to %s: %d %s", r.Pattern, name, got.status, got.body)
				}
			}
		}
	}
	if b.view() != before || s.view() != home {
		t.Error("something changed across the border")
	}
	for _, e := range s.entries() {
		if e.Subject == "admin:owner-of-a" && e.Tenant != "a" {
			t.Errorf("a stranger wrote into the log of %q: %+v", e.Tenant, e)
		}
	}
}

// Paths, hosts and headers that would mean two tenants mean none, or the one
// that the caller has no business with.
func TestConfusedBorder(t *testing.T) {
	s := newStage(t)
	a, b := s.in("a", "a.example"), s.in("b", "b.example")
	bearer := "Authorization: Bearer " + a.adminToken
	const rest = "/v1/resources"
	if got := s.raw("GET", s.adminURL, "/t/a"+rest, "", bearer); got.status != http.StatusOK {
		t.Fatalf("the way in: %d %s", got.status, got.body)
	}
	for _, c := range []struct{ target, host, header string }{
		{"/t/b" + rest, "", ""}, {rest, "", ""}, {rest, "b.example", ""}, {rest, "B.EXAMPLE.:443", ""}, {"/t/a" + rest, "b.example", ""},
		{"/t/b" + rest, "a.example", ""}, {"/t/a/../b" + rest, "", ""}, {"/t/a/..", "", ""}, {"/t/a/%2e%2e/b" + rest, "", ""}, {"/t/a%2f..%2fb" + rest, "", ""},
		{"/t/a/..%2fb" + rest, "", ""}, {"/t/%62" + rest, "", ""}, {"/t/%61" + rest, "", ""}, {"/t/A" + rest, "", ""}, {"/t/a//../b" + rest, "", ""},
		{"/t//a" + rest, "", ""}, {"/t/" + rest, "", ""}, {"/t", "", ""}, {"/t/", "", ""}, {"/t/a", "", ""}, {"/./t/b" + rest, "", ""},
		{"/t/a/t/b" + rest, "", ""}, {"/t%2fa" + rest, "", ""}, {"/T/a" + rest, "", ""}, {"/t/a;x" + rest, "", ""}, {"/t/a%00" + rest, "", ""},
		{"/t/a\\..\\b" + rest, "", ""}, {"/t/b/../a" + rest, "", ""}, {"/t/a.b" + rest, "", ""}, {"/t/*" + rest, "", ""},
		{rest, "", "X-Forwarded-Host: a.example"}, {rest, "", "Forwarded: host=a.example"}, {rest, "", "X-Original-URL: /t/a" + rest},
		{rest, "", "X-Forwarded-Prefix: /t/a"}, {"/t/b" + rest, "", "X-Forwarded-Host: a.example"}, {rest, "evil-a.example", ""}, {rest, "a.example.evil", ""},
		{"http://b.example" + rest, "a.example", ""}, {"https://b.example/t/a" + rest, "a.example", ""},
	} {
		headers := []string{bearer}
		if c.header != "" {
			headers = append(headers, c.header)
		}
		got := s.raw("GET", s.adminURL, c.target, c.host, headers...)
		if got.status/100 == 2 || got.status/100 == 3 || got.status >= 500 {
			t.Errorf("%q, host %q, %q: %d %s", c.target, c.host, c.header, got.status, got.body)
		}
	}
	_ = b
}

// Nobody finds out whether a tenant is suspended or never was.
func TestAbsentTenantsAreAlike(t *testing.T) {
	s := newStage(t)
	a := s.in("a", "a.example")
	s.putJSON(api.PathTenants+"/a", api.Tenant{Version: 1, State: api.TenantSuspended, Hosts: []string{"a.example"}})
	for _, c := range []struct{ method, path string }{
		{"POST", api.PathAuth}, {"POST", api.PathAttest}, {"GET", api.PathResource + "/prod/keys/disk-1"}, {"GET", "/readyz"}, {"GET", api.PathPolicies},
		{"GET", "/"}, {"GET", api.PathJWKS}, {"POST", api.PathGuestRefusals},
	} {
		for _, base := range []string{s.guestURL, s.adminURL} {
			for _, header := range []string{"X-None: 1", "Authorization: Bearer " + a.adminToken, "Authorization: Bearer " + s.adminToken} {
				asleep := s.raw(c.method, base, "/t/a"+c.path, "", header)
				never := s.raw(c.method, base, "/t/never"+c.path, "", header)
				if asleep.status != http.StatusNotFound || asleep.status != never.status || !bytes.Equal(asleep.body, never.body) || len(asleep.header) != len(never.header) {
					t.Errorf("%s %s: %d %s and %d %s", c.method, c.path, asleep.status, asleep.body, never.status, never.body)
				}
				if byHost := s.raw(c.method, base, c.path, "a.example", header); byHost.status != http.StatusNotFound {
					t.Errorf("by host: %s %s: %d %s", c.method, c.path, byHost.status, byHost.body)
				}
			}
		}
	}
	s.putJSON(api.PathTenants+"/a", api.Tenant{Version: 2, State: api.TenantActive})
	if got := a.admin(http.MethodGet, api.PathResources, nil); got.status != http.StatusOK || !strings.Contains(string(got.body), resourcePath) {
		t.Errorf("awake again: %d %s", got.status, got.body)
	}
}

// What belongs to the broker as a whole needs a role for all tenants.
func TestSystemRoutes(t *testing.T) {
	s := newStage(t)
	token := s.token("owner-of-default", admin.Owner, "default")
	fill := strings.NewReplacer("{tenant}", "x", "{name...}", "x", "{id}", "x", "{key}", "x")
	for _, r := range server.Routes() {
		if !r.System {
			continue
		}
		method, path, _ := strings.Cut(fill.Replace(r.Pattern), " ")
		got := s.send(method, s.adminURL+path, []byte(`{}`), "Authorization: Bearer "+token)
		if got.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", r.Pattern, got.status, got.body)
		}
	}
	if got := s.send("GET", s.adminURL+api.PathPolicies, nil, "Authorization: Bearer "+token); got.status != http.StatusOK {
		t.Errorf("at home: %d %s", got.status, got.body)
	}
}

// A tenant's auditor reads its entries and no others; the broker's reads all.
func TestAuditOfATenant(t *testing.T) {
	s := newStage(t)
	a, b := s.in("a"), s.in("b")
	read := func(u *stage, token string, query string) (out struct {
		Entries  []api.AuditEntry
		Continue string
	}) {
		t.Helper()
		got := u.send("GET", u.adminURL+api.PathAudit+"/entries"+query, nil, "Authorization: Bearer "+token)
		if err := json.Unmarshal(got.body, &out); err != nil || got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
		return out
	}
	all := s.entries()
	for _, c := range []struct {
		u      *stage
		token  string
		tenant string
	}{
		{a, s.token("x", admin.Auditor, "a"), "a"}, {b, s.token("x", admin.Auditor, "b"), "b"}, {a, s.adminToken, "a"},
		{s, s.token("x", admin.Auditor, "default"), ""},
	} {
		var want []int64
		for _, e := range all {
			if e.Tenant == c.tenant {
				want = append(want, e.Index)
			}
		}
		var got []int64
		for next := "0"; next != ""; {
			page := read(c.u, c.token, "?limit=3&continue="+next)
			for _, e := range page.Entries {
				if e.Tenant != c.tenant {
					t.Errorf("of %q to %q: %+v", e.Tenant, c.tenant, e)
				}
				if e.Index < int64(len(all)) {
					got = append(got, e.Index)
				}
			}
			next = page.Continue
		}
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%q reads %v, has %v", c.tenant, got, want)
		}
		if got := c.u.send("GET", c.u.adminURL+api.PathAudit+"/entries?tenant=c", nil, "Authorization: Bearer "+c.token); got.status != http.StatusForbidden {
			t.Errorf("%q asks for another's: %d %s", c.tenant, got.status, got.body)
		}
	}
}

// Deleting is two steps, and leaves nothing to a new tenant of the same name.
func TestDeleteTenant(t *testing.T) {
	s := newStage(t)
	a := s.in("a", "a.example")
	const path = api.PathTenants + "/a"
	token := a.auth(guest(t, "lab", "agent 1")).token()
	del := func(query string) answer { return s.admin(http.MethodDelete, path+query, nil) }
	if got := del("?confirm=a"); got.status != http.StatusConflict {
		t.Errorf("in use: %d %s", got.status, got.body)
	}
	s.putJSON(path, api.Tenant{Version: 1, State: api.TenantSuspended})
	for _, query := range []string{"", "?confirm=b", "?confirm="} {
		if got := del(query); got.status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", query, got.status, got.body)
		}
	}
	if got := del("?confirm=a"); got.status != http.StatusNoContent {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got := s.admin(http.MethodGet, path, nil); got.status != http.StatusNotFound {
		t.Errorf("%d %s", got.status, got.body)
	}
	s.putJSON(path, api.Tenant{})
	if got := a.must(http.MethodGet, api.PathResources, nil); string(got) != `{"items":[]}` {
		t.Errorf("a new tenant inherits %s", got)
	}
	if got := a.send("GET", a.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+token); got.status != http.StatusUnauthorized {
		t.Errorf("an old tenant's guest: %d %s", got.status, got.body)
	}
	kinds := []api.AuditKind{}
	for _, e := range s.entries() {
		if e.Object == "tenant/a" {
			kinds = append(kinds, e.Kind)
		}
	}
	if want := []api.AuditKind{"tenant.put", "tenant.put", "tenant.condemn", "tenant.delete", "tenant.put"}; !slices.Equal(kinds, want) {
		t.Errorf("entries %v", kinds)
	}
	var page struct{ Entries []api.AuditEntry }
	if err := json.Unmarshal(a.must(http.MethodGet, api.PathAudit+"/entries?limit=1000", nil), &page); err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		if e.Kind == api.AuditResourcePut {
			t.Errorf("a new tenant reads of the old one: %+v", e)
		}
	}
}

func TestTenantQuotas(t *testing.T) {
	s := newStage(t)
	a := s.in("a")
	s.putJSON(api.PathTenants+"/a", api.Tenant{Version: 1, Quotas: api.TenantQuotas{Resources: 2, RefValues: 6}})
	a.must(http.MethodPut, api.PathResources+"/x/y/z", []byte("1"))
	a.must(http.MethodPut, api.PathRefValues+"/one", []byte(`{"version":-1,"value":[1]}`))
	for path, body := range map[string]string{
		api.PathResources + "/x/y/zz": "1",
		api.PathRefValues + "/more":   `{"version":-1,"value":[1]}`,
		api.PathReferenceValue:        `{"version":"0.1.0","type":"sample","payload":"eyJiIjpbMV0sImMiOlsxXX0="}`,
		api.PathResource + "/x/y/zzz": "1",
	} {
		method := http.MethodPut
		if strings.HasPrefix(path, api.PathPrefix) {
			method = http.MethodPost
		}
		got := a.admin(method, path, []byte(body))
		if got.status != http.StatusTooManyRequests || got.info(t).Code != "quota_exceeded" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		} else if x := a.explain(got.info(t).Ticket); !strings.Contains(x.Cause, "at most") {
			t.Errorf("%s: %+v", path, x)
		}
	}
	var rec api.Tenant
	if err := json.Unmarshal(s.must(http.MethodGet, api.PathTenants+"/a", nil), &rec); err != nil || rec.Usage == nil ||
		rec.Usage.Resources != 2 || rec.Usage.Bytes == 0 || rec.Usage.Policies < 2 || rec.Usage.RefValues < 5 || rec.Usage.RefValues > 6 {
		t.Errorf("%+v %+v: %v", rec, rec.Usage, err)
	}
	a.must(http.MethodDelete, api.PathResources+"/x/y/z", nil)
	a.must(http.MethodPut, api.PathResources+"/x/y/other", []byte("1"))
}

// A tenant's rates keep it, and nobody else, from opening more handshakes; all
// refusals of a minute share one ticket, so they cost one entry.
func TestTenantRates(t *testing.T) {
	s := newStage(t)
	a := s.in("a")
	token := a.auth(guest(t, "lab", "agent 1")).token()
	s.putJSON(api.PathTenants+"/a", api.Tenant{Version: 1, Quotas: api.TenantQuotas{Sessions: 12, Releases: 6}})
	frozen := time.Now()
	s.clock.stop(frozen)
	auth := func(u *stage) answer {
		return u.send(http.MethodPost, u.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"snp","extra-params":""}`))
	}
	release := func(u *stage) answer {
		return u.send(http.MethodGet, u.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+token)
	}
	for range 2 { // ten seconds' worth
		if got := auth(a); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if got := release(a); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	before := len(s.entries())
	tickets := map[string]bool{}
	for range 5 {
		for _, got := range []answer{auth(a), release(a)} {
			if got.status != http.StatusTooManyRequests || got.info(t).Code != "quota_exceeded" || got.header.Get("Retry-After") == "" {
				t.Fatalf("%d %s", got.status, got.body)
			}
			tickets[got.info(t).Ticket] = true
		}
	}
	if n := len(s.entries()) - before; n != 2 || len(tickets) != 2 {
		t.Errorf("%d entries and %d tickets for ten refusals of two kinds", n, len(tickets))
	}
	if got := auth(s); got.status != http.StatusOK {
		t.Errorf("another tenant: %d %s", got.status, got.body)
	}
	s.clock.stop(frozen.Add(10 * time.Second))
	if got := auth(a); got.status != http.StatusOK {
		t.Errorf("later: %d %s", got.status, got.body)
	}
}

// Who one is, and logging out: one's own token always, others' only as an owner
// of the broker.
func TestWhoAmIAndRevocation(t *testing.T) {
	s := newStage(t)
	a := s.in("a")
	send := func(u *stage, token, method, path, body string) answer {
		return u.send(method, u.adminURL+path, []byte(body), "Authorization: Bearer "+token)
	}
	var me api.WhoAmI
	ann := s.token("ann", admin.Viewer, "a", "default")
	got := send(a, ann, "GET", api.PathWhoAmI, "")
	if err := json.Unmarshal(got.body, &me); err != nil || me.Name != "admin:ann" || me.Tenant != "a" || len(me.Roles) != 1 || me.Roles[0].Role != "viewer" || me.TokenID == "" || me.Insecure {
		t.Fatalf("%d %s", got.status, got.body)
	}
	bob, owner := s.token("bob", admin.Owner, "default"), s.token("root", admin.Owner, "*")
	for name, c := range map[string]struct {
		token, body string
		status      int
	}{
		"another's, as a tenant's owner": {bob, `{"token_id":"` + me.TokenID + `"}`, 403},
		"a subject, as a tenant's owner": {bob, `{"subject":"ann"}`, 403},
		"nobody":                         {owner, `{"issuer":"https://idp.example"}`, 400},
		"two":                            {owner, `{"token_id":"x","subject":"y"}`, 400},
		"oneself and another":            {owner, `{"token_id":"x","own":true}`, 400},
		"nothing":                        {owner, `{}`, 400},
		"only why":                       {owner, `{"reason":"a typing error"}`, 400},
		"a misspelt member":              {owner, `{"tokenid":"x","reason":"a typing error"}`, 400},
		"another's member":               {owner, `{"own":true,"kid":"x"}`, 400},
		"no text":                        {owner, ``, 400},
	} {
		if got := send(s, c.token, "POST", api.PathRevocations, c.body); got.status != c.status {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := send(a, ann, "POST", api.PathRevocations, `{"own":true,"reason":"going home"}`); got.status != 200 {
		t.Fatalf("logging out: %d %s", got.status, got.body)
	}
	if got := send(a, ann, "GET", api.PathWhoAmI, ""); got.status != 401 {
		t.Errorf("after logging out: %d %s", got.status, got.body)
	}
	if got := send(s, owner, "POST", api.PathRevocations, `{"subject":"bob"}`); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got := send(s, bob, "GET", api.PathPolicies, ""); got.status != 401 {
		t.Errorf("bob: %d %s", got.status, got.body)
	}
	var list struct{ Items []api.Revocation }
	if err := json.Unmarshal(s.must("GET", api.PathRevocations, nil), &list); err != nil || len(list.Items) != 2 || list.Items[0].Author == "" {
		t.Errorf("%+v: %v", list, err)
	}
	n := 0
	for _, e := range s.entries() {
		if e.Kind == api.AuditAdminRevoke {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d entries", n)
	}
}
