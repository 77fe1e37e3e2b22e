package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/postgrestest"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// cluster is a database, what its brokers share, and simulated guests.
type cluster struct {
	t        *testing.T
	dir      string
	database string
	launch   snp.Launch
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	s := postgrestest.Shared(t)
	c := &cluster{t: t, dir: t.TempDir(), database: s.DSN(s.NewDatabase(t))}
	c.launch = snp.Launch{Image: []byte("agent 1"), CommandLine: "console=hvc0"}
	if err := snp.CreateVendor(c.path("lab"), "Milan"); err != nil {
		t.Fatal(err)
	}
	if _, err := kek.LoadOrCreate(c.path("master.key")); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

// replica is a broker in a process of its own. Of all brokers of a cluster it
// shares the database and the master key, and no other file.
type replica struct {
	t         *testing.T
	cmd       *exec.Cmd
	guest     string // URL
	admin     *admin.Client
	transport *http.Transport
}

// start starts the broker that keeps its own files under a name.
func (c *cluster) start(name string) *replica {
	c.t.Helper()
	return c.startAll(name)[0]
}

// startAll starts brokers at the same time.
func (c *cluster) startAll(names ...string) []*replica {
	c.t.Helper()
	var all []*replica
	var said []*output
	for _, name := range names {
		cmd := exec.Command("kbs", "serve", "--config", c.configure(name)) // this binary, see TestMain
		out := &output{}
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		r := &replica{t: c.t, cmd: cmd}
		c.t.Cleanup(r.kill)
		all, said = append(all, r), append(said, out)
	}
	for i, r := range all {
		r.await(said[i])
	}
	return all
}

func (c *cluster) configure(name string) (path string) {
	c.t.Helper()
	text := fmt.Sprintf(`state_dir = %q
[http_server]
sockets = ["127.0.0.1:0"]
admin_sockets = ["127.0.0.1:0"]
metrics_sockets = ["127.0.0.1:0"]
[storage_backend]
storage_type = "postgres"
[storage_backend.backends.postgres]
url = %q
[master_key]
path = %q
[verifier.snp]
insecure_simulated_roots = [{name = "lab", path = %q}]
`, c.path(name), c.database, c.path("master.key"), c.path("lab/root.pem"))
	path = c.path(name + ".toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

var places = regexp.MustCompile(`(?m)^  (guests|admins|certificate|admin token) +(\S+)$`)

// await reads from the start message where everything is.
func (r *replica) await(said *output) {
	r.t.Helper()
	found := map[string]string{}
	for deadline := time.Now().Add(time.Minute); len(found) < 4; <-time.After(10 * time.Millisecond) {
		for _, m := range places.FindAllStringSubmatch(said.String(), -1) {
			found[m[1]] = m[2]
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the broker does not start: %s", said)
		}
	}
	pem, err := os.ReadFile(found["certificate"])
	if err != nil {
		r.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	r.guest, r.transport = found["guests"], &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	if r.admin, err = admin.New(admin.Config{URL: found["admins"], TokenFile: found["admin token"], RootCAs: roots}); err != nil {
		r.t.Fatal(err)
	}
}

// kill ends the broker as a power cut would.
func (r *replica) kill() {
	if r.cmd.ProcessState != nil {
		return
	}
	if r.admin != nil {
		r.admin.Close()
		r.transport.CloseIdleConnections()
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // it was killed
}

// set makes the cluster's guests known, through one of its brokers.
func (c *cluster) set(r *replica) {
	c.t.Helper()
	m, err := snp.Predict(c.launch)
	if err != nil {
		c.t.Fatal(err)
	}
	claims := c.claims()
	for name, value := range map[string]any{
		"snp_launch_measurement": fmt.Sprintf("%x", m),
		"snp_bootloader":         claims["reported_tcb_bootloader"], "snp_microcode": claims["reported_tcb_microcode"],
		"snp_snp_svn": claims["reported_tcb_snp"], "snp_tee_svn": claims["reported_tcb_tee"],
	} {
		raw, err := json.Marshal([]any{value})
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := r.admin.PutRefValue(c.t.Context(), api.RefValue{Name: name, Version: -1, Value: raw}); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, p := range policy.Defaults() {
		text := strings.Replace(p.Rego, "accepted_simulated_roots := set()", `accepted_simulated_roots := {"lab"}`, 1)
		if _, err := r.admin.PutPolicy(c.t.Context(), api.Policy{Kind: p.Kind, ID: p.ID, Rego: text, Version: -1}); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) claims() measure.Claims {
	c.t.Helper()
	bundle, err := os.ReadFile(c.path("lab/root.pem"))
	if err != nil {
		c.t.Fatal(err)
	}
	v, err := snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: "lab", Bundle: bundle}}})
	if err != nil {
		c.t.Fatal(err)
	}
	ev, err := c.simulator().Evidence(c.t.Context(), measure.ReportData{})
	if err != nil {
		c.t.Fatal(err)
	}
	verdict, err := v.Verify(c.t.Context(), ev, measure.Expected{ReportData: measure.BoundTo(make([]byte, 64)), InitData: measure.NotPresented()})
	if err != nil {
		c.t.Fatal(err)
	}
	return verdict.Claims
}

func (c *cluster) simulator() *snp.Simulator {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), "guest")
	if err := snp.CreateGuest(c.path("lab"), dir, c.launch); err != nil {
		c.t.Fatal(err)
	}
	sim, err := snp.OpenSimulator(dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return sim
}

// client is the project's own client on behalf of a guest.
func (c *cluster) client(f *front) *client.Client {
	c.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(f.Certificate())
	out, err := client.New(client.Config{URL: f.URL, RootCAs: roots, Attester: c.simulator()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(out.Close)
	return out
}

// verified returns the whole audit log of a broker, which must be one chain
// under the cluster's key.
func (r *replica) verified() []api.AuditEntry {
	r.t.Helper()
	ctx := context.WithoutCancel(r.t.Context())
	key, err := r.admin.AuditKey(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	trust, err := audit.NewTrust(strings.TrimSpace(key))
	if err != nil {
		r.t.Fatal(err)
	}
	note, err := r.admin.AuditCheckpoint(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	checkpoint, err := audit.ParseCheckpoint(note, trust)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := audit.Verify(r.admin.AuditEntries(ctx, 0, checkpoint.Size), note, trust); err != nil {
		r.t.Fatalf("the log does not verify: %v", err)
	}
	var out []api.AuditEntry
	for raw, err := range r.admin.AuditEntries(ctx, 0, checkpoint.Size) {
		var e api.AuditEntry
		if err != nil || json.Unmarshal(raw, &e) != nil {
			r.t.Fatalf("%s: %v", raw, err)
		}
		out = append(out, e)
	}
	return out
}

// front is the load balancer: what it does with a request is up to the test.
type front struct {
	*httptest.Server
	mu    sync.Mutex
	route func(w http.ResponseWriter, r *http.Request)
}

func (f *front) to(route func(w http.ResponseWriter, r *http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.route = route
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	route := f.route
	f.mu.Unlock()
	route(w, r)
}

// forward sends a request to a replica.
func (r *replica) forward(w http.ResponseWriter, req *http.Request) {
	to, err := url.Parse(r.guest)
	if err != nil {
		r.t.Error(err)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(to) },
		Transport: r.transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, req)
}

// again is the same request with a body of its own.
func again(r *http.Request, body []byte) *http.Request {
	out := r.Clone(r.Context())
	out.Body = readCloser{bytes.NewReader(body)}
	out.ContentLength = int64(len(body))
	return out
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
