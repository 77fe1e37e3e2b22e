package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestDefaults(t *testing.T) {
	c, err := Load("", env(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "state" || c.HTTPServer.InsecureHTTP || c.Insecure() != nil {
		t.Fatalf("%+v", c)
	}
	for _, s := range append(c.HTTPServer.Sockets, c.HTTPServer.AdminSockets...) {
		if !strings.HasPrefix(s, "127.0.0.1:") {
			t.Errorf("%s is not loopback", s)
		}
	}
	if c := Default(env(map[string]string{"STATE_DIRECTORY": "/var/lib/kbs:/other"})); c.StateDir != "/var/lib/kbs" {
		t.Errorf("state directory %s", c.StateDir)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kbs.toml")
	text := `
state_dir = "data"
[http_server]
sockets = ["127.0.0.1:0"]
[attestation_service.attestation_token_broker]
duration_min = 7
[verifier.snp]
insecure_simulated_roots = [{name = "lab", path = "root.pem"}]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, env(nil))
	if err != nil {
		t.Fatal(err)
	}
	root := c.Verifier.SNP.InsecureSimulatedRoots[0]
	if c.StateDir != filepath.Join(dir, "data") || root.Path != filepath.Join(dir, "root.pem") || !c.Verifier.SNP.Enabled {
		t.Fatalf("%+v", c)
	}
	if c.TokenLifetime().Minutes() != 7 || c.SessionLifetime().Minutes() != 5 {
		t.Fatalf("%+v", c)
	}
	if got := c.Insecure(); len(got) != 1 || !strings.Contains(got[0], "lab") {
		t.Fatalf("insecure settings %q", got)
	}
	if err := os.WriteFile(path, []byte("[http_server]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path, env(map[string]string{"STATE_DIRECTORY": "/var/lib/kbs"})); err != nil || c.StateDir != "/var/lib/kbs" {
		t.Errorf("a file that names no state directory gives %s: %v", c.StateDir, err)
	}
	raw, err := c.Dump()
	if err != nil {
		t.Fatal(err)
	}
	var again Config
	if err := Parse(raw, &again); err != nil || again.Validate() != nil || again.StateDir != c.StateDir {
		t.Fatalf("the dump does not read back: %v\n%s", err, raw)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":    {"\n[http_server]\nsocket = []\n", "line 3: http_server.socket: unknown key"},
		"unknown table":  {"[plugins]\nname = 'x'\n", "line 1: plugins"},
		"wrong type":     {"[http_server]\ninsecure_http = 'yes'\n", "line 2: http_server.insecure_http"},
		"not toml":       {"[http_server\n", "line 1"},
		"half a pair":    {"[http_server]\ncertificate = 'x'\n", "must be given together"},
		"no socket":      {"[http_server]\nsockets = []\n", "at least one"},
		"bad socket":     {"[http_server]\nsockets = ['nowhere']\n", "not host:port"},
		"tls and no tls": {"[http_server]\ninsecure_http=true\ncertificate = 'x'\nprivate_key='y'\n", "exclude"},
		"forever":        {"[attestation_service.attestation_token_broker]\nduration_min = 1000000\n", "must be from"},
		"root name":      {"[verifier.snp]\ninsecure_simulated_roots = [{name = 'a b', path = 'p'}]\n", "unique name"},
		"root twice":     {"[verifier.snp]\ninsecure_simulated_roots = [{name = 'a', path = 'p'}, {name = 'a', path = 'q'}]\n", "unique name"},
		"tdx status":     {"[verifier.tdx]\nenabled = true\naccepted_tcb = ['Revoked']\n", `"Revoked" is not one of`},
		"tdx nothing":    {"[verifier.tdx]\nenabled = true\naccepted_tcb = []\n", "must name a status"},
		"tdx disabled":   {"[verifier.tdx]\ninsecure_debug = true\n", "verifier.tdx: settings are given, but enabled is false"},
		"sgx disabled":   {"[verifier.sgx]\nmin_tcb_evaluation = 17\n", "verifier.sgx: settings are given, but enabled is false"},
		"sgx root name":  {"[verifier.sgx]\nenabled = true\ninsecure_simulated_roots = [{name = 'a b', path = 'p'}]\n", "unique name"},
		"disabled":       {"[verifier.snp]\nenabled = false\ninsecure_no_revocation = true\n", "enabled is false"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default(env(nil))
			err := Parse([]byte(c.text), &cfg)
			if err == nil {
				err = cfg.Validate()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestValidateReportsEverything(t *testing.T) {
	c := Default(env(nil))
	c.HTTPServer.Sockets, c.AttestationService.AttestationTokenBroker.DurationMin, c.AttestationService.Timeout = nil, 0, 0
	err := c.Validate()
	for _, want := range []string{"sockets", "duration_min", "timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[http_server]\nsockets = ['127.0.0.1:1']\n"))
	f.Add([]byte("a.b.c = 1"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := Default(env(nil))
		if Parse(raw, &c) == nil {
			_ = c.Validate()
		}
	})
}
