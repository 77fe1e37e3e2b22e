package registry_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// tlsServer serves a manifest over TLS under 127.0.0.1 and example.com.
func tlsServer(t *testing.T, h http.HandlerFunc, config *tls.Config) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = config
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return srv, pool
}

func manifestOf(t *testing.T, cfg registry.Config, host string) error {
	t.Helper()
	cfg.Clock = &imagetest.Clock{}
	repo, _ := imagetest.Repository(t, cfg, host+"/app")
	_, err := repo.Manifest(t.Context(), "v1")
	return err
}

// A CA and a client certificate are for the registry that they were given for.
func TestTLSOfOneHost(t *testing.T) {
	var shown atomic.Int64
	note := func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			shown.Add(1)
		}
		sick()(w, r)
	}
	strict, pool := tlsServer(t, note, &tls.Config{ClientAuth: tls.RequireAnyClientCert})
	other, _ := tlsServer(t, note, &tls.Config{ClientAuth: tls.RequestClientCert})
	cert := strict.TLS.Certificates[0] // any will do
	host, otherHost := strings.TrimPrefix(strict.URL, "https://"), strings.TrimPrefix(other.URL, "https://")

	if err := manifestOf(t, registry.Config{RootCAs: pool}, host); err == nil {
		t.Error("no client certificate was needed")
	}
	own := map[string]registry.HostTLS{host: {RootCAs: pool, Certificate: &cert}}
	if err := manifestOf(t, registry.Config{TLS: own}, host); err != nil || shown.Load() == 0 {
		t.Errorf("with its own CA and certificate: %v", err)
	}
	shown.Store(0)
	if err := manifestOf(t, registry.Config{TLS: own}, otherHost); err == nil {
		t.Error("a CA given for one host vouched for another")
	}
	if err := manifestOf(t, registry.Config{TLS: own, RootCAs: pool}, otherHost); err != nil || shown.Load() != 0 {
		t.Errorf("the client certificate was shown %d times to another host, %v", shown.Load(), err)
	}
	if _, err := registry.NewClient(registry.Config{TLS: map[string]registry.HostTLS{"https://a.io": {}}}); err == nil {
		t.Error("TLS settings for a URL were accepted")
	}
}

// connectProxy tunnels everything to one address, with a password.
func connectProxy(t *testing.T, to, password string) (proxyURL string, tunnels *atomic.Int64) {
	tunnels = &atomic.Int64{}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+password))
	host := plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != want {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			tunnels.Add(1)
			sick()(w, r)
			return
		}
		there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = there.Close() }()
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = here.Close() }()
		tunnels.Add(1)
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(there, here) }()
		_, _ = io.Copy(here, there)
	})
	return "http://me:" + password + "@" + host, tunnels
}

func TestProxy(t *testing.T) {
	password := base64.RawURLEncoding.EncodeToString(secret.Random(9).Reveal())
	srv, pool := tlsServer(t, sick(), nil)
	proxy, tunnels := connectProxy(t, strings.TrimPrefix(srv.URL, "https://"), password)
	cfg := registry.Config{RootCAs: pool, Proxy: registry.Proxy{HTTPS: proxy, HTTP: proxy}}
	if err := manifestOf(t, cfg, "example.com"); err != nil || tunnels.Load() == 0 {
		t.Errorf("HTTPS by proxy: %v, %d tunnels", err, tunnels.Load())
	}
	tunnels.Store(0)
	cfg.Proxy.No = "127.0.0.0/8"
	if err := manifestOf(t, cfg, strings.TrimPrefix(srv.URL, "https://")); err != nil || tunnels.Load() != 0 {
		t.Errorf("directly: %v, %d tunnels", err, tunnels.Load())
	}
	cfg.Proxy.HTTPS = strings.Replace(proxy, "me:", "you:", 1)
	if err := manifestOf(t, cfg, "example.com"); err == nil || strings.Contains(err.Error(), password) {
		t.Errorf("another user: %v", err)
	}
	for _, bad := range []string{"ftp://" + password + "@p", "http://", ":" + password} {
		if _, err := registry.NewClient(registry.Config{Proxy: registry.Proxy{HTTP: bad}}); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("proxy %q: %v", bad, err)
		}
	}
}

// tokenServer is a registry that wants a token, for a password or an identity token.
func tokenServer(t *testing.T, password, identity string) (host string) {
	host = plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		user, given, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && r.Method == http.MethodPost && r.FormValue("refresh_token") == identity && r.FormValue("grant_type") == "refresh_token":
			_, _ = io.WriteString(w, `{"access_token":"good"}`)
		case r.URL.Path == "/token" && r.Method == http.MethodGet && user == "me" && given == password:
			_, _ = io.WriteString(w, `{"token":"good"}`)
		case r.URL.Path != "/token" && r.Header.Get("Authorization") == "Bearer good":
			sick()(w, r)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	return host
}

func TestIdentityTokensAndHelpers(t *testing.T) {
	random := func() string { return base64.RawURLEncoding.EncodeToString(secret.Random(9).Reveal()) }
	password, identity := random(), random()
	host := tokenServer(t, password, identity)
	asked := ""
	helper := func(user, pass string, err error) registry.Helper {
		return func(_ context.Context, name, server string) (string, string, error) {
			asked = name + " " + server
			return user, pass, err
		}
	}
	tests := map[string]struct {
		auth   secret.Bytes
		helper registry.Helper
		asked  string
		works  bool
	}{
		"identity token":       {secretf(`{"auths":{%q:{"identitytoken":%q}}}`, host, identity), nil, "", true},
		"wrong identity token": {secretf(`{"auths":{%q:{"identitytoken":%q}}}`, host, password), nil, "", false},
		"helper":               {secretf(`{"credHelpers":{%q:"one"},"credsStore":"two"}`, host), helper("me", password, nil), "one " + host, true},
		"store":                {secretf(`{"credsStore":"two","auths":{%q:{}}}`, host), helper("me", password, nil), "two " + host, true},
		"store, identity":      {secretf(`{"credsStore":"two"}`), helper("<token>", identity, nil), "two " + host, true},
		"helper of another":    {secretf(`{"credHelpers":{"ghcr.io":"one"}}`), helper("me", password, nil), "", false},
		"helper without":       {secretf(`{"credsStore":"two"}`), helper("", "", nil), "two " + host, false},
		"helper fails":         {secretf(`{"credsStore":"two"}`), helper("", "", errors.New("locked")), "two " + host, false},
		"entry before store":   {secretf(`{"credsStore":"two","auths":{%q:{"username":"me","password":%q}}}`, host, password), helper("", "", nil), "", true},
	}
	for name, tt := range tests {
		asked = ""
		err := manifestOf(t, registry.Config{InsecureHTTPHosts: []string{host}, Auth: tt.auth, Helper: tt.helper}, host)
		if (err == nil) != tt.works || asked != tt.asked {
			t.Errorf("%s: asked %q, %v", name, asked, err)
		}
		if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), identity)) {
			t.Errorf("%s: the error tells the credential", name)
		}
	}
}

func TestExecHelper(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"good":    `read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"me@$server\",\"Secret\":\"$1\"}"`,
		"none":    `echo "credentials not found in native keychain"; exit 1`,
		"broken":  `echo hunter2; exit 1`,
		"garbage": `echo hunter2`,
		"endless": `yes`,
	} {
		imagetest.Must(t, os.WriteFile(filepath.Join(dir, "docker-credential-"+name), fmt.Appendf(nil, "#!/bin/sh\n%s\n", script), 0o700))
	}
	user, password, err := registry.ExecHelper(t.Context(), "good", "ghcr.io")
	if user != "me@ghcr.io" || password != "get" || err != nil {
		t.Errorf("%q %q %v", user, password, err)
	}
	if user, password, err := registry.ExecHelper(t.Context(), "none", "ghcr.io"); user != "" || password != "" || err != nil {
		t.Errorf("none: %q %q %v", user, password, err)
	}
	for _, name := range []string{"broken", "garbage", "endless", "absent", "../good", "", "a b"} {
		if _, _, err := registry.ExecHelper(t.Context(), name, "ghcr.io"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
