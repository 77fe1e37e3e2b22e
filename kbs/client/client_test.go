package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func newClient(t *testing.T, b *broker, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{URL: b.URL + "/", RootCAs: b.roots(), Attester: &attester{platform: "sample"}, Now: b.clock}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	t.Cleanup(c.Close)
	return c
}

func mustGet(t *testing.T, c *Client, uri, want string) {
	t.Helper()
	got, err := c.Resource(t.Context(), uri)
	if err != nil {
		if f, ok := errors.AsType[*fault.Fault](err); ok {
			t.Fatalf("%s: %v: %v", uri, err, f.Cause())
		}
		t.Fatalf("%s: %v", uri, err)
	}
	if string(got.Reveal()) != want {
		t.Fatalf("%s: another value came back", uri)
	}
}

func handshakes(t *testing.T, c *Client, want int64) {
	t.Helper()
	if got := c.Handshakes(); got != want {
		t.Fatalf("%d handshakes, want %d", got, want)
	}
}

// asFault fails the test unless the error is a fault.
func asFault(t *testing.T, err error) *fault.Fault {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok {
		t.Fatalf("not a fault: %v", err)
	}
	return f
}

// refusedAs checks the whole public face of an error.
func refusedAs(t *testing.T, err error, code fault.Code, ticket string) {
	t.Helper()
	f := asFault(t, err)
	if f.Code != code || string(f.Ticket) != ticket {
		t.Fatalf("got %s, want %s and ticket %q; cause: %v", f.Public(), code, ticket, f.Cause())
	}
}

func TestResource(t *testing.T) {
	tests := []struct{ name, key, hash string }{
		{"default", "", ""},
		{"P-256", "ECDH-ES+A256KW-P256", ""},
		{"P-384", "ECDH-ES+A256KW-P384", ""},
		{"P-521", "ECDH-ES+A256KW-P521", ""},
		{"RSA", "RSA-OAEP-256", ""},
		{"sha256 selected", "", "sha256"},
		{"SHA512 selected in capitals", "", "SHA512"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBroker(t, &broker{selectHash: tt.hash, resources: map[string]string{
				"default/key/1":                "a key",
				"default/key/empty":            "",
				"pkcs11:wrap-key?slot=1&x=%20": "wrapped",
			}})
			c := newClient(t, b, func(cfg *Config) { cfg.KeyAlgorithm = tt.key })
			mustGet(t, c, "kbs:///default/key/1", "a key")
			mustGet(t, c, "kbs://elsewhere.example:8080/default/key/1", "a key")
			mustGet(t, c, "kbs:///default/key/empty", "")
			mustGet(t, c, "kbs+pkcs11:///wrap-key?slot=1&x=%20", "wrapped")
			handshakes(t, c, 1)
		})
	}
}

func TestInitDataIsPresented(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	mustGet(t, newClient(t, b), "kbs:///a/b/c", "x")
	doc := &api.InitData{Format: "toml", Body: "version = \"0.1.0\"\n# <&>\u2028\n"}
	mustGet(t, newClient(t, b, func(cfg *Config) { cfg.InitData = doc }), "kbs:///a/b/c", "x")
	if len(b.initData) != 2 || b.initData[0] != nil {
		t.Fatalf("init-data %v", b.initData)
	}
	if m, ok := b.initData[1].(map[string]any); !ok || m["format"] != "toml" || m["body"] != doc.Body {
		t.Fatalf("init-data %v", b.initData[1])
	}
}

func TestManyCallersOneHandshake(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	all := func() {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got, err := c.Resource(t.Context(), "kbs:///a/b/c"); err != nil || string(got.Reveal()) != "x" {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
			})
		}
		wg.Wait()
	}
	all()
	handshakes(t, c, 1)
	b.revoke()
	all()
	handshakes(t, c, 2)
}

func TestConnectionIsReused(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	for range 20 {
		mustGet(t, c, "kbs:///a/b/c", "x")
	}
	if _, err := c.Resource(t.Context(), "kbs:///no/such/thing"); err == nil {
		t.Fatal("found what is not there")
	}
	mustGet(t, c, "kbs:///a/b/c", "x")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns != 1 {
		t.Fatalf("%d connections", b.conns)
	}
}

// Status 401 is the only one after which another attestation may help, and it
// is tried once.
func TestOnly401CostsAnAttestation(t *testing.T) {
	const resource = "/kbs/v0/resource/a/b/c"
	tests := []struct {
		name       string
		status     int
		variant    string
		extra      string
		handshakes int64
		requests   int
		code       fault.Code
		ticket     string
	}{
		{"401 each time", 401, "TokenVerifierError", "", 2, 2, fault.TokenInvalid, ""},
		{"401 of an older broker", 401, "PolicyDeny", "", 2, 2, fault.PolicyDenied, ""},
		{"403 with ticket", 403, "PolicyDeny", `,"code":"policy_denied","ticket":"7QK2-M9TD"`, 1, 1, fault.PolicyDenied, "7QK2-M9TD"},
		{"404", 404, "PluginNotFound", "", 1, 1, fault.NotFound, ""},
		{"500", 500, "PolicyEngineError", "", 1, 1, fault.PolicyError, ""},
		{"503", 503, "Other", "", 1, 1, fault.Unavailable, ""},
		{"unknown code", 403, "Other", `,"code":"root_password","ticket":"7QK2-M9TD"`, 1, 1, fault.Forbidden, "7QK2-M9TD"},
		{"malformed ticket", 403, "PolicyDeny", `,"code":"policy_denied","ticket":"see http://evil.example"`, 1, 1, fault.PolicyDenied, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBroker(t, &broker{before: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != resource {
					return false
				}
				refuse(w, tt.status, tt.variant, tt.extra)
				return true
			}})
			c := newClient(t, b)
			_, err := c.Resource(t.Context(), "kbs:///a/b/c")
			refusedAs(t, err, tt.code, tt.ticket)
			handshakes(t, c, tt.handshakes)
			if got := b.requests("GET " + resource); got != tt.requests {
				t.Errorf("asked %d times, want %d", got, tt.requests)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "some words") {
				t.Error("the broker's words became public")
			}
			if !strings.Contains(asFault(t, err).Cause().Error(), "some words") {
				t.Error("the broker's words are lost to the operator")
			}
		})
	}
}

func TestReportRefusal(t *testing.T) {
	b := newBroker(t, &broker{})
	c := newClient(t, b)
	want := api.GuestRefusal{Code: "image_layer_corrupt", Object: "registry.example/app@sha256:00", Cause: "layer 2", Findings: []api.Finding{{Claim: "diffID", Seen: "a", Wanted: []string{"b"}}}}
	got, err := c.ReportRefusal(t.Context(), want)
	if err != nil || got != "0123-4567" {
		t.Fatalf("%q, %v", got, err)
	}
	b.revoke()
	if _, err := c.ReportRefusal(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	handshakes(t, c, 2)
	if len(b.refusals) != 2 || b.refusals[1]["code"] != want.Code || b.refusals[1]["cause"] != want.Cause {
		t.Fatalf("the broker got %v", b.refusals)
	}
}

func TestReportRefusalRefused(t *testing.T) {
	var status int
	var body string
	b := newBroker(t, &broker{before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != api.PathGuestRefusals {
			return false
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}})
	c := newClient(t, b)
	report := func() (fault.Ticket, error) { return c.ReportRefusal(t.Context(), api.GuestRefusal{}) }
	for _, status = range []int{404, 405} {
		if _, err := report(); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%d: %v", status, err)
		}
	}
	status, body = 413, `{"type":"about:blank","title":"Too large","status":413,"code":"too_large","ticket":"7QK2-M9TD"}`
	_, err := report()
	refusedAs(t, err, fault.TooLarge, "7QK2-M9TD")
	status, body = 200, `{"ticket":"<script>"}`
	_, err = report()
	refusedAs(t, err, fault.Internal, "")
	status, body = 200, `nonsense`
	_, err = report()
	refusedAs(t, err, fault.Internal, "")
	handshakes(t, c, 1)
}

func TestAuthIsTriedAgain(t *testing.T) {
	tests := []struct {
		name     string
		failures int
		fail     func(w http.ResponseWriter)
		attempts int
		code     fault.Code // "" if it succeeds in the end
	}{
		{"503 twice", 2, func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, 3, ""},
		{"connection cut thrice", 3, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 4, ""},
		{"500 for ever", 99, func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, 4, fault.Internal},
		{"cut for ever", 99, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 4, fault.Unavailable},
		{"401", 1, func(w http.ResponseWriter) { refuse(w, 401, "AttestationError", "") }, 1, fault.EvidenceInvalid},
		{"429", 1, func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, 1, fault.TooMany},
		{"302", 1, func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) }, 1, fault.Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var seen int
			b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}, before: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != api.PathAuth || seen >= tt.failures {
					return false
				}
				seen++
				tt.fail(w)
				return true
			}})
			c := newClient(t, b)
			var waits []time.Duration
			c.wait = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
			_, err := c.Resource(t.Context(), "kbs:///a/b/c")
			if tt.code != "" {
				refusedAs(t, err, tt.code, "")
			} else if err != nil {
				t.Fatal(err)
			}
			if got := b.requests("POST /kbs/v0/auth"); got != tt.attempts {
				t.Errorf("%d attempts, want %d", got, tt.attempts)
			}
			if fmt.Sprint(waits) != fmt.Sprint(authDelays[:tt.attempts-1]) {
				t.Errorf("waited %v", waits)
			}
			handshakes(t, c, 1)
		})
	}
}

func TestAttestIsNotTriedAgain(t *testing.T) {
	b := newBroker(t, &broker{before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != api.PathAttest {
			return false
		}
		refuse(w, 401, "AttestationError", `,"code":"root_untrusted","ticket":"7QK2-M9TD"`)
		return true
	}})
	c := newClient(t, b)
	_, err := c.Resource(t.Context(), "kbs:///a/b/c")
	refusedAs(t, err, fault.RootUntrusted, "7QK2-M9TD")
	if got := b.requests("POST /kbs/v0/attest"); got != 1 {
		t.Fatalf("%d attempts", got)
	}
}

func TestCallerGivesUp(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	started := make(chan struct{})
	a := &attester{platform: "sample", hook: func(ctx context.Context, call int) error {
		if call > 1 {
			return nil
		}
		close(started)
		<-ctx.Done()
		return ctx.Err()
	}}
	c := newClient(t, b, func(cfg *Config) { cfg.Attester = a })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.Resource(ctx, "kbs:///a/b/c")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the one who gave up got %v", err)
		}
	})
	<-started
	for range 10 {
		wg.Go(func() {
			if _, err := c.Resource(t.Context(), "kbs:///a/b/c"); err != nil {
				t.Errorf("another caller got %v", err)
			}
		})
	}
	cancel()
	wg.Wait()
	handshakes(t, c, 2)
}

func TestAttesterFails(t *testing.T) {
	b := newBroker(t, &broker{})
	broken := errors.New("no such device")
	c := newClient(t, b, func(cfg *Config) {
		cfg.Attester = &attester{platform: "sample", hook: func(context.Context, int) error { return broken }}
	})
	_, err := c.Token(t.Context())
	refusedAs(t, err, fault.Internal, "")
	if !errors.Is(err, broken) {
		t.Fatalf("the cause is lost: %v", err)
	}
	if got := b.requests("POST /kbs/v0/attest"); got != 0 {
		t.Fatal("attested without evidence")
	}
}

// The logs of a whole life, at the lowest level, hold no credential, no secret
// and no name of a resource.
func TestLogsHoldNoSecrets(t *testing.T) {
	var logs bytes.Buffer
	var cookie string
	b := newBroker(t, &broker{resources: map[string]string{"shop/private/pin": "4711-0815"}, before: func(_ http.ResponseWriter, r *http.Request) bool {
		if k, err := r.Cookie("kbs-session-id"); err == nil {
			cookie = k.Value
		}
		return false
	}})
	c := newClient(t, b, func(cfg *Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	mustGet(t, c, "kbs:///shop/private/pin", "4711-0815")
	token, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.revoke()
	mustGet(t, c, "kbs:///shop/private/pin", "4711-0815")
	_, _ = c.Resource(t.Context(), "kbs:///shop/private/other")
	fmt.Fprintf(&logs, "%v %+v %#v", token, c.own.current, c.own.current)
	if !strings.Contains(logs.String(), "attested") || cookie == "" {
		t.Fatalf("nothing was logged: %s", &logs)
	}
	for _, word := range []string{string(token.JWT.Reveal()), cookie, "4711", "shop", "private"} {
		if strings.Contains(logs.String(), word) {
			t.Errorf("the log holds %q: %s", word, &logs)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{URL: "https://kbs.example", Attester: &attester{platform: "sample"}}
	tests := []struct {
		name   string
		change func(*Config)
	}{
		{"no URL", func(c *Config) { c.URL = "" }},
		{"plain HTTP", func(c *Config) { c.URL = "http://kbs.example" }},
		{"another scheme", func(c *Config) { c.URL = "ftp://kbs.example" }},
		{"no host", func(c *Config) { c.URL = "https:///x" }},
		{"opaque", func(c *Config) { c.URL = "https:kbs.example" }},
		{"user", func(c *Config) { c.URL = "https://a:b@kbs.example" }},
		{"query", func(c *Config) { c.URL = "https://kbs.example/?a" }},
		{"fragment", func(c *Config) { c.URL = "https://kbs.example/#a" }},
		{"unparsable", func(c *Config) { c.URL = "https://[::1" }},
		{"no attester", func(c *Config) { c.Attester = nil }},
		{"unknown key", func(c *Config) { c.KeyAlgorithm = "RSA1_5" }},
		{"two choices of a key", func(c *Config) { c.PostQuantum, c.KeyAlgorithm = true, "RSA-OAEP-256" }},
		{"its own platform as a device", func(c *Config) { c.Devices = []measure.Attester{&attester{platform: "sample"}} }},
		{"two devices of a platform", func(c *Config) {
			c.Devices = []measure.Attester{&attester{platform: "nvidia"}, &attester{platform: "nvidia"}}
		}},
		{"init-data not UTF-8", func(c *Config) { c.InitData = &api.InitData{Format: "toml", Body: "\xff"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := New(cfg); err == nil {
				t.Fatal("accepted")
			}
		})
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
}

func TestPlainHTTPIsLoud(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	var logs bytes.Buffer
	c, err := New(Config{URL: srv.URL + "/prefix/", UnsafePlainHTTP: true, Attester: &attester{platform: "sample"}, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if strings.Count(logs.String(), "without TLS") != 1 || !strings.Contains(logs.String(), "level=WARN") {
		t.Fatalf("logged %s", &logs)
	}
	if c.base != srv.URL+"/prefix" {
		t.Fatalf("base %s", c.base)
	}
	_, err = c.Token(t.Context())
	refusedAs(t, err, fault.NotFound, "")
}
