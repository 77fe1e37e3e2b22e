package registry_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// plainServer serves plain HTTP and returns its host.
func plainServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func readFull(t *testing.T, r io.Reader, p []byte) {
	t.Helper()
	_, err := io.ReadFull(r, p)
	imagetest.Must(t, err)
}

// thief notes what it is given.
type thief struct {
	host string
	mu   sync.Mutex
	loot []string
}

// newThief listens under the name localhost: another host than 127.0.0.1.
func newThief(t *testing.T) *thief {
	th := &thief{}
	_, port, err := net.SplitHostPort(plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		th.mu.Lock()
		th.loot = append(th.loot, r.Header.Get("Authorization")+string(body))
		th.mu.Unlock()
		_, _ = io.WriteString(w, `{"token":"t0ken"}`)
	}))
	imagetest.Must(t, err)
	th.host = "localhost:" + port
	return th
}

func (th *thief) got() string {
	th.mu.Lock()
	defer th.mu.Unlock()
	return strings.Join(th.loot, "|")
}

// A registry may name any token server. The password does not follow.
func TestRealmElsewhereGetsNoPassword(t *testing.T) {
	password := base64.RawURLEncoding.EncodeToString(secret.Random(12).Reveal())
	identity := func(host string) secret.Bytes {
		return secretf(`{"auths":{%q:{"identitytoken":%q}}}`, host, password)
	}
	for name, auth := range map[string]func(host string) secret.Bytes{
		"password":       func(host string) secret.Bytes { return authFile(host, "me", password) },
		"identity token": identity,
	} {
		for _, redirect := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", by redirect: ", redirect), func(t *testing.T) {
				th := newThief(t)
				var home string
				home = plainServer(t, func(w http.ResponseWriter, r *http.Request) {
					realm := "http://" + th.host + "/token"
					if r.URL.Path == "/token" {
						http.Redirect(w, r, realm, http.StatusTemporaryRedirect)
						return
					}
					if redirect {
						realm = "http://" + home + "/token"
					}
					if r.Header.Get("Authorization") == "" {
						w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`)
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					sick()(w, r)
				})
				cfg := registry.Config{InsecureHTTPHosts: []string{home, th.host}, Auth: auth(home), Clock: &imagetest.Clock{}}
				repo, _ := imagetest.Repository(t, cfg, home+"/team/app")
				_, err := repo.Manifest(t.Context(), "v1")
				encoded := base64.StdEncoding.EncodeToString([]byte("me:" + password))
				if loot := th.got(); strings.Contains(loot, password) || strings.Contains(loot, encoded) {
					t.Error("the credential went to another host")
				}
				if !redirect && (err == nil || !strings.Contains(err.Error(), "must not go to")) {
					t.Errorf("got %v", err)
				}
				cfg.TokenHosts = []string{th.host}
				repo, _ = imagetest.Repository(t, cfg, home+"/team/app")
				if _, err := repo.Manifest(t.Context(), "v1"); err != nil && !redirect {
					t.Errorf("a token server that is named: %v", err)
				}
			})
		}
	}
}

// A redirect does not leave TLS, even for a host that may be spoken to without.
func TestRedirectsStayWithTLS(t *testing.T) {
	body := "blob"
	desc := ocispec.Descriptor{Digest: digest.FromString(body), Size: int64(len(body))}
	elsewhere := plainServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	target := "http://" + elsewhere
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.URL.Path == "/loop" || target == "loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, target, http.StatusFound)
		}
	}))
	defer srv.Close()
	cfg := registry.Config{InsecureHTTPHosts: []string{elsewhere}, RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	repo, _ := imagetest.Repository(t, cfg, strings.TrimPrefix(srv.URL, "https://")+"/app")
	if _, err := registry.ReadBlob(t.Context(), repo, desc, 100); err == nil || !strings.Contains(err.Error(), "from HTTPS to plain HTTP") {
		t.Errorf("got %v", err)
	}
	target = "loop"
	if _, err := registry.ReadBlob(t.Context(), repo, desc, 100); err == nil || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("a loop: %v", err)
	}
}

// endless writes until the client goes away.
func endless(w http.ResponseWriter, _ *http.Request) {
	for chunk := bytes.Repeat([]byte("x"), 32<<10); ; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestEndlessAnswers(t *testing.T) {
	for _, at := range []string{"ping", "challenge", "token", "error", "manifest"} {
		t.Run(at, func(t *testing.T) {
			var home string
			home = plainServer(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/v2/" && at == "ping":
					endless(w, r)
				case r.URL.Path == "/v2/" && (at == "token" || at == "challenge"):
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+home+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
					if at == "challenge" {
						endless(w, r)
					}
				case r.URL.Path == "/token" && at == "token":
					endless(w, r)
				case r.URL.Path == "/token":
					_, _ = io.WriteString(w, `{"token":"t"}`)
				case strings.Contains(r.URL.Path, "/manifests/") && at == "error":
					w.WriteHeader(http.StatusServiceUnavailable)
					endless(w, r)
				case strings.Contains(r.URL.Path, "/manifests/") && at == "manifest":
					w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
					endless(w, r)
				case strings.Contains(r.URL.Path, "/manifests/"):
					sick()(w, r)
				}
			})
			repo, _ := imagetest.Repository(t, registry.Config{InsecureHTTPHosts: []string{home}, Clock: &imagetest.Clock{}}, home+"/app")
			_, err := repo.Manifest(t.Context(), "v1")
			if harmless := at == "ping" || at == "challenge"; (err == nil) != harmless {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWrongLengths(t *testing.T) {
	body := []byte("0123456789")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	tests := map[string]struct {
		serve http.HandlerFunc
		seen  int64
	}{
		"announced short": {imagetest.Body(body[:9]), 9},
		"announced long":  {imagetest.Body(append(body, 'x')), 11},
		"short":           {func(w http.ResponseWriter, _ *http.Request) { chunked(w, body[:9]) }, 9},
		"long":            {func(w http.ResponseWriter, _ *http.Request) { chunked(w, append(body, 'x')) }, 11},
		"endless":         {endless, 11},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/app")
			s.Replace("/v2/app/blobs/"+desc.Digest.String(), tt.serve)
			_, err := registry.ReadBlob(t.Context(), repo, desc, 100)
			if se, ok := errors.AsType[*registry.SizeError](err); !ok || se.Seen != tt.seen || se.Wanted != 10 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// chunked sends bytes without announcing how many.
func chunked(w http.ResponseWriter, b []byte) {
	_ = http.NewResponseController(w).Flush()
	_, _ = w.Write(b)
}

func secretf(format string, args ...any) secret.Bytes {
	return secret.New(fmt.Appendf(nil, format, args...))
}
