package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// served is a broker that serves, with everything that a service manager does.
type served struct {
	t      *testing.T
	b      *Broker
	l      Listeners
	log    *syncBuffer
	hangup chan os.Signal
	cancel context.CancelFunc
	done   chan error

	mu     sync.Mutex
	states []string
}

func serve(t *testing.T, cfg config.Config, load func() (config.Loaded, error)) *served {
	t.Helper()
	s := &served{t: t, log: &syncBuffer{}, hangup: make(chan os.Signal, 1), done: make(chan error, 1)}
	level := &slog.LevelVar{}
	var err error
	s.b, err = Open(t.Context(), cfg, Options{
		Logger: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: level})), Now: time.Now, Version: "test",
		Level: level, Load: load, Hangup: s.hangup,
		Notify: func(states ...string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.states = append(s.states, states...)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.b.Close() })
	if s.l, err = s.b.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.done <- s.b.Serve(ctx, s.l) }()
	s.eventually("ready", func() bool { return s.told("READY=1") })
	return s
}

func (s *served) stop() {
	s.t.Helper()
	s.cancel()
	if err := <-s.done; err != nil {
		s.t.Errorf("serve: %v", err)
	}
}

func (s *served) told(state string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.states, state)
}

func (s *served) eventually(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			s.t.Fatalf("never %s: %s", what, s.log.String())
		}
		<-time.After(5 * time.Millisecond)
	}
}

// client speaks TLS 1.3 with the broker and shows whose certificate it met.
func (s *served) client() (*http.Client, func() *x509.Certificate) {
	var mu sync.Mutex
	var seen *x509.Certificate
	tr := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // the test looks at the certificate itself
		VerifyConnection: func(c tls.ConnectionState) error {
			mu.Lock()
			defer mu.Unlock()
			seen = c.PeerCertificates[0]
			return nil
		},
	}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}, func() *x509.Certificate {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func (s *served) get(c *http.Client, url string) (int, string) {
	s.t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func ownPair(t *testing.T, cfg *config.Config) (replace func(cert, key []byte)) {
	t.Helper()
	dir := t.TempDir()
	cfg.HTTPServer.Certificate, cfg.HTTPServer.PrivateKey = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	replace = func(cert, key []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(cfg.HTTPServer.Certificate, cert, 0o644), os.WriteFile(cfg.HTTPServer.PrivateKey, key, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return replace
}

func pair(t *testing.T) (cert, key []byte) {
	t.Helper()
	cert, key, err := selfSigned(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// A new pair is for new connections; a broken one changes nothing and is loud.
func TestCertificateReload(t *testing.T) {
	cfg := testConfig(t)
	replace := ownPair(t, &cfg)
	cert1, key1 := pair(t)
	replace(cert1, key1)
	s := serve(t, cfg, nil)
	defer s.stop()
	url := "https://" + s.l.Guest[0].Addr().String() + "/healthz"
	old, oldSeen := s.client()
	s.get(old, url)
	first := oldSeen()

	cert2, key2 := pair(t)
	replace(cert2, key1) // half done: the two do not belong together
	s.hangup <- syscall.SIGHUP
	s.eventually("a failed reload", func() bool { return strings.Contains(s.log.String(), "RELOAD FAILED") })
	fresh, freshSeen := s.client()
	if s.get(fresh, url); !freshSeen().Equal(first) {
		t.Error("a broken pair came into force")
	}
	replace(cert2, key2)
	s.hangup <- syscall.SIGHUP
	s.eventually("a reload", func() bool {
		return strings.Contains(s.log.String(), `"what":"certificate"}`) && strings.Contains(s.log.String(), "reload.done")
	})
	if status, _ := s.get(old, url); status != http.StatusOK || !oldSeen().Equal(first) {
		t.Errorf("an open connection: %d", status)
	}
	again, againSeen := s.client()
	if s.get(again, url); againSeen().Equal(first) {
		t.Error("the new pair is not in force")
	}
	if !s.told("RELOADING=1") {
		t.Error("the service manager was not told")
	}
	s.eventually("in the audit log", func() bool {
		entries, err := s.b.audit.Entries(t.Context(), 0, 100)
		return err == nil && slices.ContainsFunc(entries, func(e json.RawMessage) bool {
			return bytes.Contains(e, []byte(`"kind":"broker.reload"`)) && bytes.Contains(e, []byte(`"certificate":"c.pem"`))
		})
	})
}

// What can change in a running broker does, and the rest is named.
func TestConfigurationReload(t *testing.T) {
	cfg := testConfig(t)
	next := config.Loaded{Config: cfg}
	var fail error
	s := serve(t, cfg, func() (config.Loaded, error) { return next, fail })
	defer s.stop()
	s.b.Logger.Debug("before")
	next.Logging.Level, next.Limits.AttestConcurrency, next.HTTPServer.PayloadRequestSize = "debug", 7, 9
	s.b.Reload(t.Context(), nil)
	s.b.Logger.Debug("after")
	text := s.log.String()
	for _, want := range []string{`"msg":"after"`, `"keys":["http_server.payload_request_size"]`, `"keys":["limits.attest_concurrency","logging.level"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %s: %s", want, text)
		}
	}
	if strings.Contains(text, `"msg":"before"`) || width(s.b.current.Load().Limits).Running != 7 || s.b.current.Load().HTTPServer.PayloadRequestSize != cfg.HTTPServer.PayloadRequestSize {
		t.Errorf("in force: %+v", s.b.current.Load().Config)
	}
	fail, next.Logging.Level = errors.New("line 3: nonsense"), "error"
	s.b.Reload(t.Context(), nil)
	s.b.Logger.Debug("still")
	if text := s.log.String(); !strings.Contains(text, "line 3: nonsense") || !strings.Contains(text, `"msg":"still"`) {
		t.Errorf("a broken configuration: %s", text)
	}
}

// slow is a request whose body ends when the test says so.
func (s *served) slow(c *http.Client) (finish func(), answer chan error) {
	r, w := io.Pipe()
	answer = make(chan error, 1)
	started := make(chan struct{})
	go func() {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://"+s.l.Guest[0].Addr().String()+"/kbs/v0/auth", io.MultiReader(
			readerFunc(func(p []byte) (int, error) { close(started); return 0, io.EOF }), r))
		if err != nil {
			answer <- err
			return
		}
		resp, err := c.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
		}
		answer <- err
	}()
	<-started
	if _, err := w.Write([]byte(`{"version":"0.4.0",`)); err != nil {
		s.t.Error(err)
	}
	probe := &http.Client{}
	defer probe.CloseIdleConnections()
	s.eventually("a connection", func() bool {
		_, text := s.get(probe, "http://"+s.l.Metrics[0].Addr().String()+"/metrics")
		return strings.Contains(text, `kbs_http_active_connections{listener="guests"} 1`)
	})
	return func() {
		_, _ = w.Write([]byte(`"tee":"snp","extra-params":""}`))
		_ = w.Close()
	}, answer
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A shutdown says first that it is one, and lets a running request finish.
func TestDrain(t *testing.T) {
	s := serve(t, testConfig(t), nil)
	c, _ := s.client()
	probe := &http.Client{}
	t.Cleanup(probe.CloseIdleConnections)
	ready := "http://" + s.l.Metrics[0].Addr().String() + "/readyz?verbose"
	if status, text := s.get(probe, ready); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	finish, answer := s.slow(c)
	s.cancel()
	s.eventually("stopping", func() bool { return s.told("STOPPING=1") })
	if status, text := s.get(probe, ready); status != http.StatusServiceUnavailable || !strings.Contains(text, "[-] not-draining failed") {
		t.Errorf("while it drains: %d %s", status, text)
	}
	finish()
	if err := <-answer; err != nil {
		t.Errorf("a request that was running: %v", err)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

// Somebody who never finishes is cut off.
func TestDrainIsBounded(t *testing.T) {
	cfg := testConfig(t)
	cfg.Limits.DrainSeconds = 1
	s := serve(t, cfg, nil)
	c, _ := s.client()
	finish, answer := s.slow(c)
	start := time.Now()
	s.cancel()
	if err := <-s.done; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	finish() // too late
	if err := <-answer; err == nil {
		t.Error("the request was answered")
	}
}

func TestInheritedSockets(t *testing.T) {
	cfg := testConfig(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := options(start)
	o.Inherited = map[string][]net.Listener{"guests": {ln}}
	b, err := Open(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	l, err := b.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if len(l.Guest) != 1 || l.Guest[0] != ln || len(l.Admin) != 1 {
		t.Errorf("%+v", l)
	}
}

// TLS as configured: modern refuses 1.2, and the hybrid group is on by default.
func TestTLSProfile(t *testing.T) {
	for name, c := range map[string]struct {
		profile, groups string
		max             uint16
		ok              bool
		curve           tls.CurveID
	}{
		"default":         {"intermediate", "", tls.VersionTLS13, true, tls.X25519MLKEM768},
		"intermediate":    {"intermediate", "", tls.VersionTLS12, true, tls.X25519},
		"modern":          {"modern", "", tls.VersionTLS13, true, tls.X25519MLKEM768},
		"modern, old":     {"modern", "", tls.VersionTLS12, false, 0},
		"custom group":    {"custom", "secp384r1", tls.VersionTLS13, true, tls.CurveP384},
		"custom, hybrids": {"custom", "SecP256r1MLKEM768", tls.VersionTLS13, true, tls.SecP256r1MLKEM768},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.HTTPServer.TLSProfile, cfg.HTTPServer.TLSGroups = c.profile, c.groups
			s := serve(t, cfg, nil)
			defer s.stop()
			conn, err := tls.Dial("tcp", s.l.Guest[0].Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: c.max})
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if err == nil {
				if got := conn.ConnectionState().CurveID; got != c.curve {
					t.Errorf("group %v, want %v", got, c.curve)
				}
				_ = conn.Close()
			}
		})
	}
}
