package server_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// restartWith starts the stage's broker again with another configuration.
func (s *stage) restartWith(change func(*config.Config)) {
	s.t.Helper()
	s.stop()
	change(&s.cfg)
	s.start()
}

// What the field's protocol can write, ours lists, reads and deletes at the same
// addresses (kbs-protocol 2.2).
func TestFieldListsAndDeletes(t *testing.T) {
	s := newStage(t)
	list := func(path string) []string {
		t.Helper()
		var out []string
		if err := json.Unmarshal(s.must(http.MethodGet, path, nil), &out); err != nil || out == nil {
			t.Fatalf("%s: %v", path, err)
		}
		return out
	}
	if got := list(api.PathResource); !slices.Equal(got, []string{resourcePath}) {
		t.Errorf("resources %v", got)
	}
	if got := list(api.PathResource + "/"); !slices.Equal(got, []string{resourcePath}) {
		t.Errorf("resources, with a slash: %v", got)
	}

	message := `{"version":"0.1.0","type":"sample","payload":"` + base64.StdEncoding.EncodeToString([]byte(`{"a/b":["x"],"c":[1]}`)) + `"}`
	s.must(http.MethodPost, api.PathReferenceValue, []byte(message))
	if got := list(api.PathReferenceValue); !slices.Equal(got, []string{"a/b", "c"}) {
		t.Errorf("reference values %v", got)
	}
	if got := list(api.PathReferenceValue + "?after=a/b"); !slices.Equal(got, []string{"c"}) {
		t.Errorf("reference values after the first: %v", got)
	}
	s.must(http.MethodDelete, api.PathReferenceValue+"/a/b", nil)
	if got := list(api.PathReferenceValue); !slices.Equal(got, []string{"c"}) {
		t.Errorf("reference values %v", got)
	}
	a := s.admin(http.MethodGet, api.PathReferenceValue+"/a/b", nil)
	if e := a.info(t); a.status != 404 || e.Type != api.ErrorTypePrefix+"RvpsError" || !strings.Contains(e.Detail, "No reference value found for the given id: a/b") {
		t.Errorf("%d %s", a.status, a.body)
	}

	for _, c := range []struct{ path, id string }{{api.PathResourcePolicy, "resource-policy"}, {api.PathAttestationPolicy, "default_cpu"}} {
		if got := list(c.path); !slices.Contains(got, c.id) {
			t.Errorf("%s: %v", c.path, got)
		}
		// What is read can be written back.
		body := s.must(http.MethodGet, c.path+"/"+c.id, nil)
		s.must(http.MethodPost, c.path, body)
		if again := s.must(http.MethodGet, c.path+"/"+c.id, nil); string(again) != string(body) {
			t.Errorf("%s came back as %s", body, again)
		}
		before := len(s.entries())
		s.must(http.MethodDelete, c.path+"/"+c.id, nil)
		if all := s.entries(); len(all) != before+1 || all[before].Kind != api.AuditPolicyDelete {
			t.Errorf("%s: no entry for the deletion", c.path)
		}
		if a := s.admin(http.MethodGet, c.path+"/"+c.id, nil); a.status != 404 && c.path == api.PathAttestationPolicy {
			t.Errorf("%s is still there: %d", c.path, a.status)
		}
	}
	s.must(http.MethodPost, api.PathResourcePolicy, []byte(`{"policy":"`+base64.RawURLEncoding.EncodeToString([]byte("package policy\nallow := false\n"))+`"}`))
	// Whoever leaves the name out, or has it empty in a script, deletes nothing.
	for _, path := range []string{api.PathResourcePolicy, api.PathResourcePolicy + "/", api.PathResourcePolicy + "/%20", api.PathAttestationPolicy, api.PathAttestationPolicy + "/", api.PathReferenceValue, api.PathReferenceValue + "/"} {
		if a := s.admin(http.MethodDelete, path, nil); a.status/100 != 4 {
			t.Errorf("DELETE %s: %d", path, a.status)
		}
	}
	if got := list(api.PathResourcePolicy); !slices.Contains(got, "resource-policy") {
		t.Errorf("a deletion without a name left %v", got)
	}
	for _, path := range []string{api.PathAttestationPolicy + "/a%2Fb", api.PathAttestationPolicy + "/.x"} {
		if a := s.admin(http.MethodGet, path, nil); a.status/100 != 4 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	a = s.admin(http.MethodPost, api.PathAttestationPolicy, []byte(`{"policy_id":"default_cpu","policy":"cGFja2FnZQ"}`))
	if e := a.info(t); a.status != 400 || e.Type != api.ErrorTypePrefix+"AttestationError" || !strings.Contains(e.Detail, "Set Attestation Policy failed") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The table of kbs-protocol 2.4 and 2.5, in our statuses and in those of the
// field's broker.
func TestStatuses(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	good, bad := s.auth(guest(t, "lab", "agent 1")).token(), s.auth(guest(t, "lab", "agent 2")).token()
	get := func(path, token string) func() answer {
		return func() answer {
			if token == "" {
				return s.send(http.MethodGet, s.guestURL+path, nil)
			}
			return s.send(http.MethodGet, s.guestURL+path, nil, "Authorization: Bearer "+token)
		}
	}
	post := func(path, body string) func() answer {
		return func() answer { return s.send(http.MethodPost, s.guestURL+path, []byte(body)) }
	}
	resource := api.PathResource + "/"
	cases := []struct {
		name           string
		do             func() answer
		variant        string
		code           fault.Code
		status, compat int
	}{
		{"denied", get(resource+resourcePath, bad), "PolicyDeny", fault.PolicyDenied, 403, 401},
		{"denied, and absent", get(resource+"prod/keys/none", bad), "PolicyDeny", fault.PolicyDenied, 403, 401},
		{"absent", get(resource+"prod/keys/none", good), "PluginInternalError", fault.NotFound, 404, 401},
		{"bad path", get(resource+"prod/keys", good), "InvalidRequestPath", fault.InvalidRequest, 400, 404},
		{"no token", get(resource+resourcePath, ""), "TokenNotFound", fault.TokenInvalid, 401, 401},
		{"bad token", get(resource+resourcePath, "x"), "TokenVerifierError", fault.TokenInvalid, 401, 401},
		{"unknown plugin", get(api.PathPrefix+"/nebula-ca/credential", good), "PluginNotFound", fault.NotFound, 404, 404},
		{"get of auth", get(api.PathAuth, good), "PluginNotFound", fault.NotFound, 404, 404},
		{"version", post(api.PathAuth, `{"version":"9.0.0","tee":"snp","extra-params":""}`), "AttestationError", fault.VersionUnsupported, 401, 401},
		{"malformed request", post(api.PathAuth, `{`), "AttestationError", fault.InvalidRequest, 400, 401},
		{"selector", post(api.PathAuth, `{"version":"0.4.0","tee":"snp","extra-params":{"id":"x"}}`), "AttestationError", fault.SelectorUnknown, 403, 401},
		{"no session", post(api.PathAttest, `{}`), "AttestationError", fault.SessionInvalid, 401, 401},
		{"too large", post(api.PathAttest, strings.Repeat("x", 2<<20+1)), "AttestationError", fault.TooLarge, 413, 413},
		{"no admin", post(api.PathResourcePolicy, `{}`), "AdminAuthAccess", fault.Unauthenticated, 401, 401},
	}
	check := func(mode string, want func(i int) int) {
		for i, c := range cases {
			a := c.do()
			e := a.info(t)
			if a.status != want(i) || e.Type != api.ErrorTypePrefix+c.variant || e.Code != string(c.code) || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s, %s: %d %s; want %d %s %s", mode, c.name, a.status, a.body, want(i), c.variant, c.code)
			}
		}
	}
	check("ours", func(i int) int { return cases[i].status })
	plugin := get(api.PathPrefix+"/nebula-ca/credential", good)().info(t)
	if !strings.HasPrefix(plugin.Detail, "Plugin nebula-ca not found") {
		t.Errorf("detail %q", plugin.Detail)
	}
	// Whoever is denied learns nothing about what there is: only tickets differ.
	one, other := get(resource+resourcePath, bad)().info(t), get(resource+"prod/keys/none", bad)().info(t)
	one.Detail, other.Detail = strings.ReplaceAll(one.Detail, one.Ticket, ""), strings.ReplaceAll(other.Detail, other.Ticket, "")
	one.Ticket, other.Ticket = "", ""
	if one != other {
		t.Errorf("the answers to a denied guest differ: %+v and %+v", one, other)
	}
	s.restartWith(func(c *config.Config) { c.HTTPServer.Compat401 = true })
	check("the field's", func(i int) int { return cases[i].compat })
}
