package ctl

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// environ is an environment for tests, with a home of its own.
func environ(t *testing.T, vars ...string) func(string) string {
	t.Helper()
	env := map[string]string{"HOME": t.TempDir()}
	for i := 0; i < len(vars); i += 2 {
		env[vars[i]] = vars[i+1]
	}
	return func(name string) string { return env[name] }
}

const twoContexts = `
current-context: dev
contexts:
- name: dev
  server: https://dev.example
  ca: ca.pem
- name: prod
  server: https://prod.example
  token-file: /secrets/prod
  log-key: keys/audit.pub
`

func writeConfig(t *testing.T, env func(string) string, text string) string {
	t.Helper()
	path := configPath(env)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}

func TestPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		file  string
		vars  []string
		flags flags
		want  settings // DIR is the config file's directory
	}{
		{"nothing", "", nil, flags{}, settings{Server: defaultServer}},
		{"current context", twoContexts, nil, flags{}, settings{Server: "https://dev.example", CA: "DIR/ca.pem", Context: "dev"}},
		{"context of the environment", twoContexts, []string{"KBS_CONTEXT", "prod"}, flags{},
			settings{Server: "https://prod.example", TokenFile: "/secrets/prod", LogKey: "DIR/keys/audit.pub", Context: "prod"}},
		{"context of the flag", twoContexts, []string{"KBS_CONTEXT", "nowhere"}, flags{context: "dev"},
			settings{Server: "https://dev.example", CA: "DIR/ca.pem", Context: "dev"}},
		{"environment over context", twoContexts, []string{"KBS_SERVER", "https://env", "KBS_CA", "env.pem", "KBS_TOKEN_FILE", "env.token"}, flags{},
			settings{Server: "https://env", CA: "env.pem", TokenFile: "env.token", Context: "dev"}},
		{"flag over environment", twoContexts, []string{"KBS_SERVER", "https://env", "KBS_CA", "env.pem", "KBS_TOKEN_FILE", "env.token"},
			flags{server: "https://flag", ca: "flag.pem", tokenFile: "flag.token"},
			settings{Server: "https://flag", CA: "flag.pem", TokenFile: "flag.token", Context: "dev"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &cli{env: environ(t, tt.vars...), flags: tt.flags}
			dir := ""
			if tt.file != "" {
				dir = writeConfig(t, c.env, tt.file)
			}
			got, err := c.settings()
			if err != nil {
				t.Fatal(err)
			}
			tt.want.CA = strings.Replace(tt.want.CA, "DIR", dir, 1)
			tt.want.LogKey = strings.Replace(tt.want.LogKey, "DIR", dir, 1)
			if got != tt.want {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestBadConfig(t *testing.T) {
	for name, text := range map[string]string{
		"unknown member": "contexts: [{name: a, sever: x}]",
		"twice":          "contexts: [{name: a}, {name: a}]",
		"no name":        "contexts: [{server: x}]",
		"no such":        "current-context: b",
		"not YAML":       "\x00",
	} {
		c := &cli{env: environ(t)}
		writeConfig(t, c.env, text)
		if _, err := c.settings(); err == nil || exitCode(err) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigIsKept(t *testing.T) {
	env := environ(t)
	writeConfig(t, env, twoContexts)
	cfg, err := loadConfig(configPath(env))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.set(brokerContext{Name: "dev", TokenFile: "/t"}) || !cfg.set(brokerContext{Name: "new", Server: "https://new"}) {
		t.Fatal("set tells new from old wrongly")
	}
	if err := cfg.save(); err != nil {
		t.Fatal(err)
	}
	again, err := loadConfig(configPath(env))
	if err != nil {
		t.Fatal(err)
	}
	dev, _ := again.find("dev")
	if dev != (brokerContext{Name: "dev", Server: "https://dev.example", CA: "ca.pem", TokenFile: "/t"}) || len(again.Contexts) != 3 {
		t.Fatalf("got %+v", again)
	}
	info, err := os.Stat(configPath(env))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func TestXDG(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{"/x", "/x/kbs/config.yaml"}, {"", "/home/.config/kbs/config.yaml"}, {"relative", "/home/.config/kbs/config.yaml"},
	} {
		env := environ(t, "HOME", "/home", "XDG_CONFIG_HOME", tt.value)
		if got := configPath(env); got != tt.want {
			t.Errorf("%q: %s", tt.value, got)
		}
	}
}

func TestCheckpointPath(t *testing.T) {
	env := environ(t, "XDG_STATE_HOME", "/state")
	seen := map[string]string{}
	for _, server := range []string{
		"https://a", "https://a:1", "https://a/1", "https://a/../b", "https://..", "https://a_3a_1", "https://[::1]:1", "x", "",
	} {
		p := checkpointPath(env, server)
		if filepath.Dir(p) != "/state/kbs/checkpoints" && server != "" {
			t.Errorf("%q leads to %q", server, p)
		}
		if other, twice := seen[p]; twice {
			t.Errorf("%q and %q share %q", server, other, p)
		}
		seen[p] = server
	}
}

// An unreachable or unconfigured broker is named together with the way out.
func TestRunWithoutToken(t *testing.T) {
	var out, msg bytes.Buffer
	code := Run(t.Context(), []string{"list", "policies"}, environ(t), Stdio{In: strings.NewReader(""), Out: &out, Err: &msg})
	if code != 1 || out.Len() != 0 || !strings.Contains(msg.String(), "KBS_TOKEN_FILE") {
		t.Fatalf("exit %d, stdout %q, stderr %q", code, &out, &msg)
	}
}

func TestSizeOf(t *testing.T) {
	if n, err := sizeOf([]byte("origin\n42\nroot\n\n— sig\n")); err != nil || n != 42 {
		t.Fatalf("got %d, %v", n, err)
	}
	for _, bad := range []string{"", "origin", "origin\n42", "origin\n-1\nroot\n", "origin\nx\nroot\n"} {
		if _, err := sizeOf([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
