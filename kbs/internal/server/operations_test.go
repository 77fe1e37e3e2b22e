package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/metrics"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

func TestProbes(t *testing.T) {
	s := newStage(t)
	for _, base := range []string{s.guestURL, s.adminURL, s.metricsURL} {
		if a := s.send(http.MethodGet, base+"/healthz", nil); a.status != 200 || len(a.body) != 0 {
			t.Errorf("healthz: %d %q", a.status, a.body)
		}
		for _, path := range []string{"/livez", "/readyz", "/startupz"} {
			want := 200
			if base == s.guestURL {
				want = 404
			}
			if a := s.send(http.MethodGet, base+path, nil); a.status != want {
				t.Errorf("%s: %d %q", path, a.status, a.body)
			}
		}
	}
	a := s.send(http.MethodGet, s.metricsURL+"/readyz?verbose", nil)
	for _, check := range []string{"started", "not-draining", "store", "master-key", "token-key", "policies", "audit-log", "audit-sinks", "collateral", "clock"} {
		if !slices.Contains(strings.Split(string(a.body), "\n"), "[+] "+check+" ok") {
			t.Errorf("%q lacks %s", a.body, check)
		}
	}
	// What fails is named, and why is in the log alone.
	s.must(http.MethodDelete, api.PathPolicies+"/resource/resource-policy", nil)
	s.clock.advance(time.Hour)
	a = s.send(http.MethodGet, s.metricsURL+"/readyz?verbose", nil)
	if text := string(a.body); a.status != 503 || !strings.Contains(text, "[-] policies failed") || !strings.Contains(text, "[!] clock needs attention") || strings.Contains(text, "resource-policy") {
		t.Errorf("without a policy: %d %q", a.status, a.body)
	}
	if !strings.Contains(s.log.String(), "resource-policy") {
		t.Error("the log does not tell why")
	}
	if a := s.send(http.MethodGet, s.metricsURL+"/livez", nil); a.status != 200 {
		t.Errorf("alive: %d", a.status)
	}
}

// scrape returns the lines of /metrics by series.
func (s *stage) scrape() map[string]string {
	s.t.Helper()
	a := s.send(http.MethodGet, s.metricsURL+"/metrics", nil)
	if a.status != http.StatusOK {
		s.t.Fatalf("scrape: %d %s", a.status, a.body)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(a.body)) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			out[line[:i]] = strings.TrimSpace(line[i+1:])
		}
	}
	return out
}

// One handshake, one release, a few refusals, and what they come to.
func TestMetrics(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	h := s.auth(sim)
	token := "Authorization: Bearer " + h.token()
	h.attest(h.message(h.nonce)) // again: the same token
	stranger := s.auth(guest(t, "stranger", "agent 1"))
	stranger.attest(stranger.message(stranger.nonce))
	s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"nonsense","extra-params":""}`))
	for _, path := range []string{"prod/keys/disk-1", "prod/keys/none", "prod/keys/other"} {
		s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+path, nil, token)
	}
	s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil)
	s.send(http.MethodGet, s.guestURL+"/some/path/that/is/not", nil)
	got := s.scrape()
	for series, want := range map[string]string{
		`kbs_build_info{go_version="*",version="test"}`:                                        "1",
		`kbs_auth_requests_total`:                                                              "3",
		`kbs_auth_successes_total`:                                                             "2",
		`kbs_auth_errors_total`:                                                                "1",
		`kbs_attestation_requests_total`:                                                       "3",
		`kbs_attestation_errors_total`:                                                         "0",
		`kbs_attestation_successes_total{tee_type="snp"}`:                                      "2",
		`kbs_attestation_failures_total{tee_type="snp"}`:                                       "1",
		`kbs_attestation_outcomes_total{code="root_untrusted",tee_type="snp"}`:                 "1",
		`kbs_resource_reads_total`:                                                             "1",
		`kbs_resource_writes_total`:                                                            "1",
		`kbs_policy_evaluations_total`:                                                         "3",
		`kbs_policy_approvals_total`:                                                           "3",
		`kbs_policy_violations_total`:                                                          "0",
		`kbs_release_decisions_total{code="ok",decision="allow"}`:                              "1",
		`kbs_release_decisions_total{code="not_found",decision="deny"}`:                        "2",
		`kbs_release_decisions_total{code="token_invalid",decision="deny"}`:                    "1",
		`kbs_plugin_requests_total{plugin_name="resource"}`:                                    "4",
		`kbs_plugin_errors_total{plugin_name="resource"}`:                                      "3",
		`kbs_http_requests_total{code="200",listener="guests",route="POST /kbs/v0/attest"}`:    "2",
		`kbs_http_requests_total{code="404",listener="guests",route="/{path...}"}`:             "1",
		`kbs_http_request_duration_seconds_count{listener="guests",route="POST /kbs/v0/auth"}`: "3",
		`kbs_step_duration_seconds_count{step="evidence"}`:                                     "2",
		`kbs_step_duration_seconds_count{step="appraise"}`:                                     "1",
		`kbs_step_duration_seconds_count{step="seal"}`:                                         "1",
		`kbs_ready{check="store"}`:                                                             "1",
		`kbs_reference_values{state="valid"}`:                                                  "5",
	} {
		found := false
		for name, value := range got {
			if matches(name, series) {
				found = true
				if value != want {
					t.Errorf("%s is %s, want %s", name, value, want)
				}
			}
		}
		if !found && want != "0" {
			t.Errorf("%s is missing", series)
		}
	}
	page := metrics.Page()
	for name := range got {
		family, _, _ := strings.Cut(name, "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			family = strings.TrimSuffix(family, suffix)
		}
		if strings.HasPrefix(family, "kbs_") && !strings.Contains(page, "| `"+family+"` |") {
			t.Errorf("%s is not on the page", family)
		}
		for _, word := range []string{"disk-1", "some/path", "nonsense", "127.0.0.1", s.value, s.known} {
			if strings.Contains(name, word) {
				t.Errorf("%s has a label that a caller chose", name)
			}
		}
	}
	if a := s.send(http.MethodGet, s.guestURL+"/metrics", nil); a.status != 404 {
		t.Errorf("metrics for guests: %d", a.status)
	}
}

// matches compares with a pattern in which * stands for anything.
func matches(s, pattern string) bool {
	before, after, ok := strings.Cut(pattern, "*")
	return s == pattern || ok && strings.HasPrefix(s, before) && strings.HasSuffix(s, after)
}

func TestMetricsForGuests(t *testing.T) {
	s := newStage(t)
	s.stop()
	s.cfg.HTTPServer.InsecureGuestMetrics = true
	s.start()
	resp, err := s.http.Get(s.guestURL + "/metrics") // not through send: the document speaks of the default
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "kbs_build_info") {
		t.Errorf("%d %.80s: %v", resp.StatusCode, body, err)
	}
	if weak := s.cfg.Insecure(); !slices.Contains(weak, "http_server.insecure_guest_metrics") {
		t.Errorf("insecure settings %q", weak)
	}
}

// A root that the configuration names is read again when its file changes; a
// broken one changes nothing.
func TestRootsReload(t *testing.T) {
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(vendor(t, name), "root.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	path := filepath.Join(t.TempDir(), "root.pem")
	put := func(raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(read("lab"))
	s := newStageTrusting(t, config.SimulatedRoot{Name: "lab", Path: path})
	s.acceptLab()
	attests := func(vendor string) bool {
		h := s.auth(guest(t, vendor, "agent 1"))
		return h.attest(h.message(h.nonce)).status == http.StatusOK
	}
	if !attests("lab") || attests("stranger") {
		t.Fatal("the roots are not those of the configuration")
	}
	put([]byte("nonsense"))
	s.b.Reload(t.Context(), []string{path})
	if !attests("lab") || !strings.Contains(s.log.String(), "RELOAD FAILED") {
		t.Error("a broken file came into force, or nobody was told")
	}
	put(read("stranger"))
	s.b.Reload(t.Context(), []string{path})
	if attests("lab") || !attests("stranger") {
		t.Error("the new root is not in force")
	}
	if got := s.scrape()[`kbs_reloads_total{outcome="failed",what="verifier"}`]; got != "1" {
		t.Errorf("%s failed reloads were counted", got)
	}
}

// The log, at its most talkative, has nothing that only tickets may tell.
func TestLogIsDiscreet(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	h := s.auth(guest(t, "lab", "agent 1"))
	token := h.token()
	bearer := "Authorization: Bearer " + token
	s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, bearer)
	s.send(http.MethodGet, s.guestURL+api.PathResource+"/prod/keys/absent", nil, bearer)
	other := s.auth(guest(t, "lab", "agent 2"))
	s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+other.token())
	bad := s.auth(guest(t, "stranger", "agent 1"))
	bad.attest(bad.message(bad.nonce))
	s.send(http.MethodGet, s.adminURL+api.PathPolicies, nil, "Authorization: Bearer a.b.c")
	s.send(http.MethodPost, s.guestURL+api.PathResource+"/a/b/c", []byte(s.value), "Authorization: Bearer "+s.adminToken)
	text := s.log.String()
	for what, word := range map[string]string{
		"the secret": s.value, "a reference value": s.known, "an attestation token": token, "an admin token": s.adminToken,
		"a cookie": strings.TrimPrefix(h.cookie, api.SessionCookie+"="), "a nonce": h.nonce, "a path": "disk-1", "a forged token": "a.b.c",
	} {
		if strings.Contains(text, word) {
			t.Errorf("the log shows %s", what)
		}
	}
	for _, want := range []string{`"event_id":"http.request"`, `"route":"GET /kbs/v0/resource/{repo}/{type}/{tag}"`, `"code":"policy_denied","ticket":"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

// A whole attestation, as a collector sees it.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	var text strings.Builder
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&text, r.Body)
	}))
	defer collector.Close()
	s := newStage(t)
	s.stop()
	s.cfg.Tracing.Endpoint, s.cfg.Tracing.SampleRatio = collector.URL, 1
	s.start()
	s.know()
	s.acceptLab()
	h := s.auth(guest(t, "lab", "agent 1"))
	s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+h.token())
	s.stop() // and so everything is delivered
	mu.Lock()
	defer mu.Unlock()
	for _, step := range append(observe.Steps(), "POST /kbs/v0/attest") {
		if !strings.Contains(text.String(), step) {
			t.Errorf("no span %s", step)
		}
	}
	s.discreet([]byte(text.String()))
	if !strings.Contains(s.log.String(), `"trace_id":"`) {
		t.Error("no line of the log has a trace id")
	}
}
