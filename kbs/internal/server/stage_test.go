package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/logging"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Simulated vendors take seconds to make, so all tests share them.
var vendorRoot string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vendors")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	vendorRoot = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	if c, err := published(); err == nil && code == 0 && wholeRun() && len(c.undriven()) > 0 {
		fmt.Fprintln(os.Stderr, "no test drove these routes to a success through stage.send:", c.undriven())
		code = 1
	}
	os.Exit(code)
}

var vendors = map[string]func() error{
	"lab":      sync.OnceValue(func() error { return snp.CreateVendor(filepath.Join(vendorRoot, "lab"), "Milan") }),
	"stranger": sync.OnceValue(func() error { return snp.CreateVendor(filepath.Join(vendorRoot, "stranger"), "Milan") }),
}

func vendor(t testing.TB, name string) string {
	t.Helper()
	if err := vendors[name](); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(vendorRoot, name)
}

const initDataText = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"aa.toml\" = \"[token_configs]\\n\"\n"

// launch describes a guest; its image decides its measurement.
func launch(t testing.TB, image string) snp.Launch {
	t.Helper()
	doc, err := initdata.Parse([]byte(initDataText))
	if err != nil {
		t.Fatal(err)
	}
	return snp.Launch{Image: []byte(image), CommandLine: "console=hvc0", InitDataDigest: doc.Digest()}
}

// guest is a simulated guest under a vendor.
func guest(t testing.TB, vendorName, image string) *snp.Simulator {
	t.Helper()
	return guestOf(t, vendorName, launch(t, image))
}

func guestOf(t testing.TB, vendorName string, l snp.Launch) *snp.Simulator {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "guest")
	if err := snp.CreateGuest(vendor(t, vendorName), dir, l); err != nil {
		t.Fatal(err)
	}
	sim, err := snp.OpenSimulator(dir)
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

type clock struct {
	ahead   atomic.Int64
	stopped atomic.Pointer[time.Time]
}

func (c *clock) now() time.Time {
	if at := c.stopped.Load(); at != nil {
		return *at
	}
	return time.Now().Add(time.Duration(c.ahead.Load()))
}
func (c *clock) stop(at time.Time)       { c.stopped.Store(&at) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const resourcePath = "prod/keys/disk-1"

// stage is a whole broker over TLS on loopback, with one guest image known.
type stage struct {
	t          testing.TB
	cfg        config.Config
	b          *broker.Broker
	clock      *clock
	log        *logBuffer
	guestURL   string
	adminURL   string
	metricsURL string
	http       *http.Client
	roots      *x509.CertPool
	adminToken string
	value      string // of the resource
	known      string // the measurement that is wanted, hex
	listeners  broker.Listeners
	stop       func()
}

func newStage(t testing.TB) *stage {
	t.Helper()
	s := newStageTrusting(t, config.SimulatedRoot{Name: "lab", Path: filepath.Join(vendor(t, "lab"), "root.pem")})
	m, err := snp.Predict(launch(t, "agent 1"))
	if err != nil {
		t.Fatal(err)
	}
	s.known = hex.EncodeToString(m[:])
	s.must(http.MethodPut, api.PathResources+"/"+resourcePath, []byte(s.value))
	return s
}

func newStageTrusting(t testing.TB, roots ...config.SimulatedRoot) *stage {
	t.Helper()
	cfg := config.Default(func(string) string { return "" })
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	cfg.HTTPServer.Sockets = []string{"127.0.0.1:0"}
	cfg.HTTPServer.AdminSockets = []string{"127.0.0.1:0"}
	cfg.HTTPServer.MetricsSockets = []string{"127.0.0.1:0"}
	cfg.Verifier.SNP.InsecureSimulatedRoots = roots
	s := &stage{t: t, cfg: cfg, clock: &clock{}, log: &logBuffer{}}
	s.start()
	t.Cleanup(func() { s.stop() })
	s.value = "value-" + hex.EncodeToString(secret.Random(16).Reveal())
	return s
}

func (s *stage) start() {
	s.t.Helper()
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	logger := logging.New(s.log, "json", level)
	b, err := broker.Open(s.t.Context(), s.cfg, broker.Options{Logger: logger, Now: s.clock.now, Version: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := b.Listen(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		s.http.CloseIdleConnections()
		if err := <-done; err != nil {
			s.t.Errorf("serve: %v", err)
		}
		if err := b.Close(); err != nil {
			s.t.Errorf("close: %v", err)
		}
	})
	s.b, s.listeners = b, l
	s.guestURL, s.adminURL = "https://"+l.Guest[0].Addr().String(), "https://"+l.Admin[0].Addr().String()
	s.metricsURL = "http://" + l.Metrics[0].Addr().String()
	cert, err := os.ReadFile(b.CertificatePath())
	if err != nil {
		s.t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	if !s.roots.AppendCertsFromPEM(cert) {
		s.t.Fatal("no certificate")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsRoots(s.roots)
	s.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	token, err := os.ReadFile(broker.AdminTokenPath(s.cfg.StateDir))
	if err != nil {
		s.t.Fatal(err)
	}
	s.adminToken = strings.TrimSpace(string(token))
	// The first look at the log leaves an entry there. Now it is made, and tests
	// that count what they did find only that.
	s.admin(http.MethodGet, api.PathAudit+"/entries?limit=1", nil)
}

// answer is a response with its body.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) info(t testing.TB) api.ErrorInformation {
	t.Helper()
	var e api.ErrorInformation
	if err := json.Unmarshal(a.body, &e); err != nil {
		t.Fatalf("%d %q is no error body: %v", a.status, a.body, err)
	}
	return e
}

// send makes one request. Header values come as "Name: value".
func (s *stage) send(method, url string, body []byte, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, raw}
	if !s.cfg.HTTPServer.Compat401 { // those statuses are the field's; the document has ours
		s.hold(req, body, a)
	}
	return a
}

// hold checks an exchange against the published document.
func (s *stage) hold(req *http.Request, sent []byte, a answer) {
	s.t.Helper()
	c, err := published()
	if err != nil {
		s.t.Fatal(err)
	}
	if after, ok := strings.CutPrefix(req.URL.Path, api.PathTenant); ok { // a tenant's API is the same
		_, rest, _ := strings.Cut(after, "/")
		req = req.Clone(req.Context())
		req.URL.Path, req.URL.RawPath = "/"+rest, ""
	}
	at := req.URL.Scheme + "://" + req.URL.Host
	switch {
	case strings.HasPrefix(s.guestURL, at):
		c.hold(s.t, "guests", req, sent, a)
	case strings.HasPrefix(s.adminURL, at):
		c.hold(s.t, "admins", req, sent, a)
	case s.metricsURL == at:
		c.hold(s.t, "metrics", req, sent, a)
	}
}

func (s *stage) admin(method, path string, body []byte) answer {
	s.t.Helper()
	return s.send(method, s.adminURL+path, body, "Authorization: Bearer "+s.adminToken)
}

func (s *stage) must(method, path string, body []byte) []byte {
	s.t.Helper()
	a := s.admin(method, path, body)
	if a.status/100 != 2 {
		s.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return a.body
}

func (s *stage) putJSON(path string, v any) {
	s.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	s.must(http.MethodPut, path, raw)
}

// know registers what a good guest looks like.
func (s *stage) know() {
	s.t.Helper()
	// The processor's versions are those of the simulator.
	v := claimsOf(s.t, guest(s.t, "lab", "agent 1"))
	for name, value := range map[string]any{
		"snp_launch_measurement": s.known,
		"snp_bootloader":         v["reported_tcb_bootloader"], "snp_microcode": v["reported_tcb_microcode"],
		"snp_snp_svn": v["reported_tcb_snp"], "snp_tee_svn": v["reported_tcb_tee"],
	} {
		raw, err := json.Marshal([]any{value})
		if err != nil {
			s.t.Fatal(err)
		}
		s.putJSON(api.PathRefValues+"/"+name, api.RefValue{Version: -1, Value: raw})
	}
}

// claimsOf asks a verifier of its own about a guest.
func claimsOf(t testing.TB, sim *snp.Simulator) measure.Claims {
	t.Helper()
	bundle, err := os.ReadFile(filepath.Join(vendor(t, "lab"), "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: "lab", Bundle: bundle}}})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := sim.Evidence(t.Context(), measure.ReportData{})
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := v.Verify(t.Context(), ev, measure.Expected{
		ReportData: measure.BoundTo(make([]byte, 64)), InitData: measure.NotPresented(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return verdict.Claims
}

// acceptLab puts the administrator's own policies in force: the shipped ones
// with the name of the lab's root filled in.
func (s *stage) acceptLab() {
	s.t.Helper()
	for _, p := range policy.Defaults() {
		text := strings.Replace(p.Rego, "accepted_simulated_roots := set()", `accepted_simulated_roots := {"lab"}`, 1)
		s.putJSON(api.PathPolicies+"/"+p.Kind+"/"+p.ID, api.Policy{Version: 1, Rego: text})
	}
}

// client is the project's own client on behalf of a guest.
func (s *stage) client(sim *snp.Simulator) *client.Client {
	s.t.Helper()
	c, err := client.New(client.Config{
		URL: s.guestURL, RootCAs: s.roots, Attester: sim, Now: s.clock.now,
		InitData: &api.InitData{Format: "toml", Body: initDataText},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// explain opens a ticket as an administrator.
func (s *stage) explain(ticket string) api.Explanation {
	s.t.Helper()
	if _, err := fault.ParseTicket(ticket); err != nil {
		s.t.Fatalf("ticket %q: %v", ticket, err)
	}
	var x api.Explanation
	if err := json.Unmarshal(s.must(http.MethodGet, api.PathTickets+"/"+ticket, nil), &x); err != nil {
		s.t.Fatal(err)
	}
	return x
}

// entries returns the audit log after verifying it as an auditor would.
func (s *stage) entries() []api.AuditEntry {
	s.t.Helper()
	var page struct {
		Entries []json.RawMessage `json:"entries"`
	}
	if err := json.Unmarshal(s.must(http.MethodGet, api.PathAudit+"/entries?limit=1000", nil), &page); err != nil {
		s.t.Fatal(err)
	}
	note := s.must(http.MethodGet, api.PathAudit+"/checkpoint", nil)
	trust, err := audit.NewTrust(strings.TrimSpace(string(s.must(http.MethodGet, api.PathAudit+"/key", nil))))
	if err != nil {
		s.t.Fatal(err)
	}
	each := func(yield func(json.RawMessage, error) bool) {
		for _, e := range page.Entries {
			if !yield(e, nil) {
				return
			}
		}
	}
	if _, err := audit.Verify(each, note, trust); err != nil {
		s.t.Fatalf("the log does not verify: %v", err)
	}
	out := make([]api.AuditEntry, len(page.Entries))
	for i, e := range page.Entries {
		if err := json.Unmarshal(e, &out[i]); err != nil {
			s.t.Fatal(err)
		}
	}
	return out
}

// entry returns the audit entry of an explanation and checks that they agree.
func (s *stage) entry(x api.Explanation) api.AuditEntry {
	s.t.Helper()
	all := s.entries()
	if x.Audit < 0 || x.Audit >= int64(len(all)) {
		s.t.Fatalf("ticket %s has entry %d of %d", x.Ticket, x.Audit, len(all))
	}
	e := all[x.Audit]
	if e.Ticket != x.Ticket || e.Code != x.Code || e.Subject != x.Subject || e.Object != x.Object {
		s.t.Fatalf("entry %+v is not that of %+v", e, x)
	}
	return e
}

// discreet fails if a text that the host can read tells too much.
func (s *stage) discreet(text []byte) {
	s.t.Helper()
	for what, word := range map[string]string{
		"the secret": s.value, "a reference value": s.known, "the name of a reference value": "snp_",
		"a claim": "measurement", "a policy": "default_cpu", "a root": "lab",
	} {
		if strings.Contains(string(text), word) {
			s.t.Errorf("an answer shows %s: %s", what, text)
		}
	}
}

// handshake is a guest that speaks the protocol by hand.
type handshake struct {
	s      *stage
	sim    *snp.Simulator
	key    *jwe.PrivateKey
	cookie string
	nonce  string
}

func (s *stage) auth(sim *snp.Simulator) *handshake {
	s.t.Helper()
	key, err := jwe.Generate("")
	if err != nil {
		s.t.Fatal(err)
	}
	a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"snp","extra-params":""}`))
	var c api.Challenge
	if err := json.Unmarshal(a.body, &c); a.status != http.StatusOK || err != nil {
		s.t.Fatalf("auth: %d %s", a.status, a.body)
	}
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return &handshake{s, sim, key, cookie, c.Nonce}
}

// message is an honest answer to a nonce.
func (h *handshake) message(nonce string) api.Attestation {
	h.s.t.Helper()
	m := api.Attestation{
		InitData:    &api.InitData{Format: "toml", Body: initDataText},
		RuntimeData: api.RuntimeData{Nonce: nonce, TEEPubKey: h.key.JWK()},
	}
	digest, err := rcar.PrimaryDigest(crypto.SHA384, m.RuntimeData, "")
	if err != nil {
		h.s.t.Fatal(err)
	}
	data, err := measure.NewReportData(digest)
	if err != nil {
		h.s.t.Fatal(err)
	}
	ev, err := h.sim.Evidence(h.s.t.Context(), data)
	if err != nil {
		h.s.t.Fatal(err)
	}
	m.TEEEvidence.PrimaryEvidence = ev.Data
	return m
}

func (h *handshake) raw(m api.Attestation) []byte {
	h.s.t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		h.s.t.Fatal(err)
	}
	return raw
}

func (h *handshake) attest(m api.Attestation) answer {
	h.s.t.Helper()
	return h.attestRaw(h.raw(m))
}

func (h *handshake) attestRaw(raw []byte) answer {
	h.s.t.Helper()
	return h.s.send(http.MethodPost, h.s.guestURL+api.PathAttest, raw, "Cookie: "+h.cookie)
}

// token completes an honest handshake.
func (h *handshake) token() string {
	h.s.t.Helper()
	a := h.attest(h.message(h.nonce))
	var r api.AttestResponse
	if err := json.Unmarshal(a.body, &r); a.status != http.StatusOK || err != nil {
		h.s.t.Fatalf("attest: %d %s", a.status, a.body)
	}
	return r.Token
}
