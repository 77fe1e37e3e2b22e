package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// A broker may answer anything. Whatever it is, the caller gets a fault with
// a known code, and nothing of the answer in public.
func TestHostileAnswers(t *testing.T) {
	const resource = "/kbs/v0/resource/a/b/c"
	huge := strings.Repeat("A", maxAnswer+1)
	text := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
	}
	cookie := func(value, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Set-Cookie", value)
			_, _ = io.WriteString(w, body)
		}
	}
	token := func(payload string) func(http.ResponseWriter) {
		return text(200, `{"token":"e30.`+base64.RawURLEncoding.EncodeToString([]byte(payload))+`.c2ln"}`)
	}
	const good = `{"nonce":"bm9uY2U=","extra-params":""}`
	tests := []struct {
		name   string
		path   string
		answer func(http.ResponseWriter)
		code   fault.Code
	}{
		{"auth: not JSON", api.PathAuth, cookie("kbs-session-id=1", "<html>"), fault.Internal},
		{"auth: empty", api.PathAuth, cookie("kbs-session-id=1", ""), fault.Internal},
		{"auth: trailing data", api.PathAuth, cookie("kbs-session-id=1", good+"{}"), fault.Internal},
		{"auth: no nonce", api.PathAuth, cookie("kbs-session-id=1", `{"extra-params":""}`), fault.Internal},
		{"auth: long nonce", api.PathAuth, cookie("kbs-session-id=1", `{"nonce":"`+strings.Repeat("A", maxNonce+1)+`"}`), fault.Internal},
		{"auth: nonce is a number", api.PathAuth, cookie("kbs-session-id=1", `{"nonce":1}`), fault.Internal},
		{"auth: unknown hash", api.PathAuth, cookie("kbs-session-id=1", `{"nonce":"n","extra-params":{"selected-hash-algorithm":"sm3"}}`), fault.Internal},
		{"auth: hash is a number", api.PathAuth, cookie("kbs-session-id=1", `{"nonce":"n","extra-params":{"selected-hash-algorithm":384}}`), fault.Internal},
		{"auth: extra-params is an array", api.PathAuth, cookie("kbs-session-id=1", `{"nonce":"n","extra-params":[]}`), fault.Internal},
		{"auth: no cookie", api.PathAuth, text(200, good), fault.Internal},
		{"auth: another cookie", api.PathAuth, cookie("session=1", good), fault.Internal},
		{"auth: empty cookie", api.PathAuth, cookie("kbs-session-id=", good), fault.Internal},
		{"auth: long cookie", api.PathAuth, cookie("kbs-session-id="+strings.Repeat("A", maxCookie+1), good), fault.Internal},
		{"auth: oversized", api.PathAuth, cookie("kbs-session-id=1", huge), fault.Internal},
		{"auth: version mismatch", api.PathAuth, text(401, `{"type":"https://github.com/confidential-containers/kbs/errors/AttestationError","detail":"Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: expect =0.2.0 while the request is 0.4.0"}`), fault.VersionUnsupported},
		{"attest: not JSON", api.PathAttest, text(200, "token"), fault.Internal},
		{"attest: no token", api.PathAttest, text(200, `{}`), fault.Internal},
		{"attest: token is no JWT", api.PathAttest, text(200, `{"token":"abc"}`), fault.Internal},
		{"attest: header injection", api.PathAttest, text(200, `{"token":"e30.e30\r\nX-Evil: 1.c2ln"}`), fault.Internal},
		{"attest: token without exp", api.PathAttest, token(`{}`), fault.Internal},
		{"attest: exp is a string", api.PathAttest, token(`{"exp":"1"}`), fault.Internal},
		{"attest: exp out of range", api.PathAttest, token(`{"exp":1e300}`), fault.Internal},
		{"attest: exp negative", api.PathAttest, token(`{"exp":-1}`), fault.Internal},
		{"attest: huge token", api.PathAttest, text(200, `{"token":"e30.e30.`+strings.Repeat("A", maxToken)+`"}`), fault.Internal},
		{"attest: oversized", api.PathAttest, text(200, huge), fault.Internal},
		{"attest: html error", api.PathAttest, text(400, "<html>"), fault.InvalidRequest},
		{"attest: too large", api.PathAttest, text(413, "payload reached size limit"), fault.TooLarge},
		{"resource: raw bytes", resource, text(200, "plain"), fault.Internal},
		{"resource: null", resource, text(200, "null"), fault.Internal},
		{"resource: empty JWE", resource, text(200, "{}"), fault.Internal},
		{"resource: oversized", resource, text(200, huge), fault.Internal},
		{"resource: oversized error", resource, text(403, huge), fault.Internal},
		{"resource: 204", resource, func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, fault.Internal},
		{"resource: error in an array", resource, text(403, `[]`), fault.Forbidden},
		{"resource: error members of wrong type", resource, text(403, `{"type":1,"detail":{},"code":"policy_denied"}`), fault.Forbidden},
		{"resource: foreign error type", resource, text(403, `{"type":"https://evil.example/PolicyDeny","detail":"x"}`), fault.Forbidden},
		{"resource: very long detail", resource, text(403, `{"type":"x","detail":"`+strings.Repeat("ä", 100_000)+`"}`), fault.Forbidden},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBroker(t, &broker{before: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == tt.path {
					tt.answer(w)
				}
				return r.URL.Path == tt.path
			}})
			c := newClient(t, b)
			got, err := c.Resource(t.Context(), "kbs:///a/b/c")
			refusedAs(t, err, tt.code, "")
			if got.Len() != 0 || err.Error() != string(tt.code) {
				t.Errorf("public text %q", err)
			}
			if cause := asFault(t, err).Cause().Error(); len(cause) > 2500 || !utf8.ValidString(cause) {
				t.Errorf("the cause has %d bytes", len(cause))
			}
			handshakes(t, c, 1)
		})
	}
}

func TestSealedToAnotherKey(t *testing.T) {
	other := map[string]any{}
	b := newBroker(t, &broker{before: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/kbs/v0/resource/") {
			return false
		}
		text, err := sealFor(other, "a secret")
		if err != nil {
			t.Errorf("seal: %v", err)
		}
		_, _ = io.WriteString(w, text)
		return true
	}})
	foreign := newClient(t, b)
	s, err := foreign.own.get(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(s.key.JWK())
	if err != nil || json.Unmarshal(raw, &other) != nil {
		t.Fatal(err)
	}
	mustGet(t, foreign, "kbs:///a/b/c", "a secret")
	_, err = newClient(t, b).Resource(t.Context(), "kbs:///a/b/c")
	refusedAs(t, err, fault.Internal, "")
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	for _, path := range []string{api.PathAuth, api.PathAttest, "/kbs/v0/resource/a/b/c"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprint(path, status), func(t *testing.T) {
				b := newBroker(t, &broker{before: func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path == path {
						http.Redirect(w, r, elsewhere.URL+path, status)
					}
					return r.URL.Path == path
				}})
				roots := b.roots()
				roots.AddCert(elsewhere.Certificate())
				c := newClient(t, b, func(cfg *Config) { cfg.RootCAs = roots })
				_, err := c.Resource(t.Context(), "kbs:///a/b/c")
				refusedAs(t, err, fault.Unavailable, "")
			})
		}
	}
	elsewhere.mu.Lock()
	defer elsewhere.mu.Unlock()
	if len(elsewhere.count) != 0 {
		t.Fatalf("followed to %v", elsewhere.count)
	}
}

func TestWrongTLS(t *testing.T) {
	b := newBroker(t, &broker{})
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} // what the client must refuse
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.StartTLS()
	defer old.Close()
	oldRoots := x509.NewCertPool()
	oldRoots.AddCert(old.Certificate())

	tests := []struct {
		name   string
		change func(*Config)
		waits  int
	}{
		{"root is not ours", func(c *Config) { c.RootCAs = x509.NewCertPool() }, 0},
		{"system roots", func(c *Config) { c.RootCAs = nil }, 0},
		{"another name", func(c *Config) { c.URL = strings.Replace(b.URL, "127.0.0.1", "localhost", 1) }, 0},
		{"TLS 1.1", func(c *Config) { c.URL, c.RootCAs = old.URL, oldRoots }, len(authDelays)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, b, tt.change)
			waits := 0
			c.wait = func(ctx context.Context, _ time.Duration) error { waits++; return ctx.Err() }
			_, err := c.Token(t.Context())
			refusedAs(t, err, fault.Unavailable, "")
			if waits != tt.waits {
				t.Errorf("tried again %d times", waits)
			}
		})
	}
	if got := b.requests("POST /kbs/v0/auth"); got != 0 {
		t.Fatalf("%d requests arrived", got)
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aä", 2, "a"}, {"ää", 3, "ä"}, {"", 0, ""}, {"x", 0, ""}} {
		if got := clip(tt.in, tt.n); got != tt.want {
			t.Errorf("clip(%q, %d) = %q", tt.in, tt.n, got)
		}
	}
}

// FuzzRefusal feeds error bodies: the public face is always a known code, and
// at most a well-formed ticket.
func FuzzRefusal(f *testing.F) {
	f.Add(401, []byte(`{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"Access denied by policy"}`))
	f.Add(403, []byte(`{"code":"policy_denied","ticket":"7QK2-M9TD"}`))
	f.Add(503, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		got := refusal(answer{status: status, body: body})
		if !got.Code.Known() {
			t.Fatalf("code %q became public", got.Code)
		}
		if _, err := fault.ParseTicket(string(got.Ticket)); got.Ticket != "" && err != nil {
			t.Fatalf("ticket %q became public", got.Ticket)
		}
	})
}

// FuzzChallenge feeds answers of /auth.
func FuzzChallenge(f *testing.F) {
	f.Add([]byte(`{"nonce":"n","extra-params":""}`), "kbs-session-id=1; Path=/")
	f.Add([]byte(`{"nonce":"n","extra-params":{"selected-hash-algorithm":"sha512"}}`), "kbs-session-id=\"1\"")
	f.Add([]byte(`{}`), "x")
	f.Fuzz(func(t *testing.T, body []byte, cookie string) {
		ch, err := parseChallenge(answer{status: 200, header: http.Header{"Set-Cookie": {cookie}}, body: body})
		if err == nil && (ch.nonce == "" || ch.cookie == nil || !ch.hash.Available()) {
			t.Fatalf("incomplete challenge %+v", ch)
		}
	})
}
