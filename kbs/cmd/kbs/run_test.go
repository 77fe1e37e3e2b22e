package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func kbs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err output
	code = run(t.Context(), args, func(string) string { return "" }, stdio{out: &out, err: &err})
	return code, out.String(), err.String()
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kbs.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommands(t *testing.T) {
	good := write(t, "[http_server]\ninsecure_http = true\n")
	bad := write(t, "[http_server]\n\nsocket = ['x']\n")
	for name, c := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"version":           {[]string{"version"}, 0, "kbs ", ""},
		"help":              {[]string{"--help"}, 0, "admin-token", ""},
		"validate":          {[]string{"config", "validate", "--config", good}, 0, "", "warning: in force: http_server.insecure_http"},
		"validate default":  {[]string{"config", "validate"}, 0, "", "is valid"},
		"validate bad":      {[]string{"config", "validate", "--config", bad}, 1, "", "line 3: http_server.socket: unknown key"},
		"dump":              {[]string{"config", "dump", "--config", good, "--state", "/s"}, 0, "insecure_http = true", ""},
		"validate short":    {[]string{"config", "validate", "-c", bad}, 1, "", "did you mean http_server.sockets?"},
		"validate field":    {[]string{"config", "validate", "--config-file", bad}, 1, "", "line 3"},
		"dump origins":      {[]string{"config", "dump", "-c", good, "--state", "/s"}, 0, "# flag --state", ""},
		"schema":            {[]string{"config", "schema"}, 0, "https://json-schema.org/draft/2020-12/schema", ""},
		"no page":           {[]string{"reference", "x"}, 1, "", "there is no page"},
		"field, bad":        {[]string{"--config-file", bad}, 1, "", "unknown key"},
		"serve bad":         {[]string{"serve", "--config", bad}, 1, "", "unknown key"},
		"no file":           {[]string{"serve", "--config", "/does/not/exist"}, 1, "", "read configuration"},
		"bad flag":          {[]string{"serve", "--nonsense"}, 1, "", "hint     kbs serve --help"},
		"bad command":       {[]string{"nonsense"}, 1, "", "unknown command"},
		"no command":        {nil, 1, "", "kbs needs a command"},
		"no config":         {[]string{"config"}, 1, "", "kbs config needs a command"},
		"bad config":        {[]string{"config", "valid"}, 1, "", "unknown command"},
		"bad argument":      {[]string{"serve", "extra"}, 1, "", "extra"},
		"token, no state":   {[]string{"admin-token", "--state", "/does/not/exist"}, 1, "", "admin key"},
		"token, too long":   {[]string{"admin-token", "--ttl", "13h"}, 1, "", "no token that lives longer than 12h0m0s"},
		"token, bad tenant": {[]string{"admin-token", "--tenant", "A/B"}, 1, "", "a name is 1 to 40 of"},
		"token, bad role":   {[]string{"admin-token", "--role", "root"}, 1, "", "role must be one of"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := kbs(t, c.args...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit %d\nstdout %s\nstderr %s", code, stdout, stderr)
			}
		})
	}
}

// The start message leads a person to everything and shows no token; the
// token opens the admin API over the certificate that the message names.
func TestServe(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	config := write(t, "[http_server]\nsockets = ['127.0.0.1:0']\nadmin_sockets = ['127.0.0.1:0']\nmetrics_sockets = ['127.0.0.1:0']\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, err output
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--config", config, "--state", state}, func(string) string { return "" }, stdio{out: &out, err: &err})
	}()
	place := regexp.MustCompile(`(?m)^  (guests|admins|certificate|admin token) +(\S+)$`)
	found := map[string]string{}
	for deadline := time.Now().Add(20 * time.Second); len(found) < 4; {
		select {
		case code := <-done:
			t.Fatalf("exit %d: %s", code, err.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("no start message: %s", err.String())
		}
		for _, m := range place.FindAllStringSubmatch(err.String(), -1) {
			found[m[1]] = m[2]
		}
	}
	token, rerr := os.ReadFile(found["admin token"])
	if rerr != nil {
		t.Fatal(rerr)
	}
	cert, rerr := os.ReadFile(found["certificate"])
	if rerr != nil {
		t.Fatal(rerr)
	}
	code, fresh, stderr := kbs(t, "admin-token", "--state", state, "--role", "viewer", "--ttl", "1h")
	if code != 0 {
		t.Fatal(stderr)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	for _, bearer := range []string{string(token), fresh} {
		req, rerr := http.NewRequestWithContext(t.Context(), http.MethodGet, found["admins"]+"/v1/policies", nil)
		if rerr != nil {
			t.Fatal(rerr)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(bearer))
		resp, rerr := transport.RoundTrip(req)
		if rerr != nil {
			t.Fatal(rerr)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	transport.CloseIdleConnections()
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit %d: %s", code, err.String())
	}
	if strings.Contains(err.String()+out.String(), strings.TrimSpace(string(token))) || out.String() != "" {
		t.Error("the token, or anything on stdout, was printed")
	}
}
