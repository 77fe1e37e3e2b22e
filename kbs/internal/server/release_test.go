package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func tlsRoots(p *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: p, MinVersion: tls.VersionTLS12}
}

const resourceURI = "kbs:///" + resourcePath

// The known guest gets its secret; the log shows the attestation, the root
// that it rests on, and the release, in this order.
func TestAllow(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	value, err := s.client(guest(t, "lab", "agent 1")).Resource(t.Context(), resourceURI)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	if string(value.Reveal()) != s.value {
		t.Fatal("another value was released")
	}
	all := s.entries()
	attested := slices.IndexFunc(all, func(e api.AuditEntry) bool { return e.Kind == "attest" })
	released := slices.IndexFunc(all, func(e api.AuditEntry) bool { return e.Kind == "release" })
	if attested < 0 || released < attested {
		t.Fatalf("entries %+v", all)
	}
	a, r := all[attested], all[released]
	if a.Decision != "allow" || a.Details["status"] != "affirming" || a.Details["simulated_root"] != "lab" || a.Details["policy"] != "attestation/default_cpu@2" {
		t.Errorf("attestation %+v", a)
	}
	if r.Decision != "allow" || r.Object != "resource/"+resourcePath || r.Subject != a.Subject || r.Details["policy"] != "resource/resource-policy@2" {
		t.Errorf("release %+v", r)
	}
	if all[1].Kind != "policy.put" || !slices.ContainsFunc(all, func(e api.AuditEntry) bool {
		return e.Kind == "broker.start" && strings.Contains(e.Details["insecure"], "lab")
	}) {
		t.Errorf("the simulated root is not in the log: %+v", all)
	}
	for _, word := range []string{s.value, s.adminToken, s.known} {
		if strings.Contains(s.log.String(), word) {
			t.Errorf("the log shows %q", word)
		}
	}
}

// The cookie of the session is as good as the token.
func TestAllowByCookie(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	h := s.auth(guest(t, "lab", "agent 1"))
	text := h.token()
	for name, header := range map[string]string{"cookie": "Cookie: " + h.cookie, "bearer": "Authorization: Bearer " + text} {
		a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, header)
		var msg api.JWE
		if err := json.Unmarshal(a.body, &msg); a.status != http.StatusOK || err != nil {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		value, err := h.key.Open(msg)
		if err != nil || string(value.Reveal()) != s.value {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestCookieAttributes(t *testing.T) {
	s := newStage(t)
	a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"snp","extra-params":""}`))
	c := a.header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "Secure", "SameSite=Strict", "Path=/kbs/v0;", "Expires="} {
		if !strings.Contains(c, want) {
			t.Errorf("%q lacks %s", c, want)
		}
	}
	var ch api.Challenge
	if err := json.Unmarshal(a.body, &ch); err != nil {
		t.Fatal(err)
	}
	if nonce, err := base64.StdEncoding.DecodeString(ch.Nonce); err != nil || len(nonce) != 32 || string(ch.ExtraParams) != `""` {
		t.Errorf("challenge %s", a.body)
	}
}

// Each guest that must not have the secret, and what its ticket tells.
func TestDenied(t *testing.T) {
	for name, c := range map[string]struct {
		prepare       func(s *stage)
		image         string
		claim, wanted string // a finding that must be there
		policy        string
	}{
		"default policies refuse simulation": {func(s *stage) { s.know() }, "agent 1", "simulated_root", "", "attestation/default_cpu@1"},
		"other measurement":                  {func(s *stage) { s.know(); s.acceptLab() }, "agent 2", "measurement", "known", "attestation/default_cpu@2"},
		"no reference values":                {func(s *stage) { s.acceptLab() }, "agent 1", "measurement", "", "attestation/default_cpu@2"},
		"policy of another resource": {func(s *stage) {
			s.know()
			s.acceptLab()
			s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: "package policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if data[\"resource-path\"][0] == \"test\"\n"})
		}, "agent 1", "", "", "resource/resource-policy@3"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c.prepare(s)
			cl := s.client(guest(t, "lab", c.image))
			_, err := cl.Resource(t.Context(), resourceURI)
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Code != fault.PolicyDenied {
				t.Fatalf("got %v", err)
			}
			if cl.Handshakes() != 1 {
				t.Errorf("a denial cost %d handshakes", cl.Handshakes())
			}
			x := s.explain(string(f.Ticket))
			if x.Stage != "release" || x.Object != "resource/"+resourcePath || x.Platform != "snp" || x.Policy != c.policy || x.Rule == "" || x.Line == 0 || x.Cause == "" {
				t.Errorf("explanation %+v", x)
			}
			i := slices.IndexFunc(x.Findings, func(f api.Finding) bool { return f.Claim == c.claim })
			if c.claim != "" && (i < 0 || x.Findings[i].Seen == "") {
				t.Fatalf("findings %+v", x.Findings)
			}
			if c.wanted != "" && !slices.Contains(x.Findings[i].Wanted, s.known) {
				t.Errorf("the wanted value is not told: %+v", x.Findings[i])
			}
			if e := s.entry(x); e.Kind != "release" || e.Decision != "deny" {
				t.Errorf("entry %+v", e)
			}
		})
	}
}

// A denied guest must not learn what exists, and what it is told must be fit
// for its host.
func TestDenialRevealsNothing(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	text := s.auth(guest(t, "lab", "agent 2")).token()
	var bodies []string
	for _, path := range []string{resourcePath, "prod/keys/no-such-thing"} {
		a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+path, nil, "Authorization: Bearer "+text)
		e := a.info(t)
		if a.status != http.StatusForbidden || e.Type != api.ErrorTypePrefix+"PolicyDeny" || e.Code != "policy_denied" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if e.Detail != "Access denied by policy: policy_denied (ticket "+e.Ticket+")" {
			t.Errorf("detail %q", e.Detail)
		}
		s.discreet(a.body)
		bodies = append(bodies, strings.ReplaceAll(string(a.body), e.Ticket, "T"))
	}
	if bodies[0] != bodies[1] {
		t.Errorf("a guest can tell a resource that exists from one that does not:\n%s\n%s", bodies[0], bodies[1])
	}
}

func TestMissingResource(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	_, err := s.client(guest(t, "lab", "agent 1")).Resource(t.Context(), "kbs:///prod/keys/none")
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != fault.NotFound {
		t.Fatalf("got %v", err)
	}
	if x := s.explain(string(f.Ticket)); x.Code != "not_found" || x.Object != "resource/prod/keys/none" {
		t.Errorf("explanation %+v", x)
	}
}

func TestTokens(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	text := s.auth(guest(t, "lab", "agent 1")).token()
	parts := strings.Split(text, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), `"jti":"`, `"jti":"0`, 1))) + "." + parts[2]
	get := func(headers ...string) answer {
		return s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, headers...)
	}
	if a := get("Authorization: Bearer " + text); a.status != http.StatusOK {
		t.Fatalf("the good token: %d %s", a.status, a.body)
	}
	for name, c := range map[string]struct{ header, variant string }{
		"none at all":    {"X-Nothing: 1", "TokenNotFound"},
		"basic":          {"Authorization: Basic abc", "TokenNotFound"},
		"unknown cookie": {"Cookie: kbs-session-id=00112233445566778899aabbccddeeff", "TokenNotFound"},
		"alg none":       {"Authorization: Bearer " + none, "TokenVerifierError"},
		"forged":         {"Authorization: Bearer " + forged, "TokenVerifierError"},
		"garbage":        {"Authorization: Bearer a.b.c", "TokenVerifierError"},
		"admin's":        {"Authorization: Bearer " + s.adminToken, "TokenVerifierError"},
	} {
		a := get(c.header)
		e := a.info(t)
		if a.status != http.StatusUnauthorized || e.Code != "token_invalid" || e.Type != api.ErrorTypePrefix+c.variant {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		s.entry(s.explain(e.Ticket))
	}
	s.clock.advance(6*time.Minute + time.Second) // its five, and the leeway of clocks
	if a := get("Authorization: Bearer " + text); a.status != http.StatusUnauthorized || a.info(t).Code != "token_invalid" {
		t.Errorf("expired: %d %s", a.status, a.body)
	}
}

// No answer without an entry: when the log cannot be written, the guest gets
// nothing, although its token is good and its policy allows.
func TestNoAnswerWithoutEntry(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	text := s.auth(guest(t, "lab", "agent 1")).token()
	d := s.b.Deps()
	d.Audit = deaf{}
	srv := httptest.NewServer(server.New(d).Guest())
	defer srv.Close()
	a := s.send(http.MethodGet, srv.URL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+text)
	if a.status != http.StatusInternalServerError || a.info(t).Code != "internal" || strings.Contains(string(a.body), "ciphertext") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if x := s.explain(a.info(t).Ticket); !strings.Contains(x.Cause, errDeaf.Error()) {
		t.Errorf("explanation %+v", x)
	}
}

var errDeaf = errors.New("the audit log cannot be written")

type deaf struct{}

func (deaf) Append(context.Context, api.AuditEntry) (api.AuditEntry, error) {
	return api.AuditEntry{}, errDeaf
}

func (deaf) AppendTx(store.Tx, api.AuditEntry) (api.AuditEntry, error) {
	return api.AuditEntry{}, errDeaf
}

var _ audit.Recorder = deaf{}

// order notes in which order a release asks its rooms.
type order struct {
	resource.Backend
	audit.Recorder
	calls []string
}

func (o *order) Get(ctx context.Context, p resource.Path, version int64) (resource.Item, error) {
	o.calls = append(o.calls, "value")
	return o.Backend.Get(ctx, p, version)
}

func (o *order) Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	o.calls = append(o.calls, "audit "+e.Decision)
	return o.Recorder.Append(ctx, e)
}

func (o *order) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	o.calls = append(o.calls, "audit and lease "+e.Decision)
	return o.Recorder.AppendTx(tx, e)
}

func TestOrderOfARelease(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	good, bad := s.auth(guest(t, "lab", "agent 1")).token(), s.auth(guest(t, "lab", "agent 2")).token()
	d := s.b.Deps()
	o := &order{Backend: d.Resources, Recorder: d.Audit}
	d.Resources, d.Audit = mounted(t, o), o
	srv := httptest.NewServer(server.New(d).Guest())
	defer srv.Close()
	for _, c := range []struct {
		token string
		want  []string
	}{{good, []string{"value", "audit and lease allow"}}, {good, []string{"value", "audit allow"}}, {bad, nil}} {
		o.calls = nil
		s.send(http.MethodGet, srv.URL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+c.token)
		if !slices.Equal(o.calls, c.want) {
			t.Errorf("calls %q, want %q", o.calls, c.want)
		}
	}
}

type panicking struct{ resource.Backend }

func (panicking) Get(context.Context, resource.Path, int64) (resource.Item, error) { panic("boom") }

func mounted(t *testing.T, b resource.Backend) *resource.Mounts {
	t.Helper()
	m, err := resource.NewMounts(resource.Mount{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPanicIsAnswered(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	text := s.auth(guest(t, "lab", "agent 1")).token()
	d := s.b.Deps()
	d.Resources = mounted(t, panicking{d.Resources})
	srv := httptest.NewServer(server.New(d).Guest())
	defer srv.Close()
	a := s.send(http.MethodGet, srv.URL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+text)
	e := a.info(t)
	if a.status != http.StatusInternalServerError || strings.Contains(string(a.body), "boom") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if x := s.explain(e.Ticket); !strings.Contains(x.Cause, "boom") {
		t.Errorf("explanation %+v", x)
	}
}

// A restart keeps keys, tokens and state.
func TestRestart(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	text, key, before := s.auth(guest(t, "lab", "agent 1")).token(), s.adminToken, len(s.entries())
	s.stop()
	s.start()
	if s.adminToken != key {
		t.Error("the admin token was replaced")
	}
	if a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+text); a.status != http.StatusOK {
		t.Errorf("the token did not survive: %d %s", a.status, a.body)
	}
	if after := len(s.entries()); after <= before {
		t.Errorf("the log went from %d to %d entries", before, after)
	}
}
