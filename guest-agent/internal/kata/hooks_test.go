package kata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// hookDir has a hook that writes down what it is told.
func hookDir(t *testing.T) (dir, said string) {
	t.Helper()
	dir = t.TempDir()
	said = filepath.Join(dir, "said")
	for _, kind := range []string{"prestart", "poststop"} {
		if err := os.Mkdir(filepath.Join(dir, kind), 0o755); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\necho $1 >>" + said + "\ncat >>" + said + "\n"
		if err := os.WriteFile(filepath.Join(dir, kind, "10-note"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, kind, "README"), []byte("no program"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, said
}

// Hooks of the measured directory run around a container, with its state.
func TestGuestHooks(t *testing.T) {
	t.Parallel()
	dir, said := hookDir(t)
	p := newPod(t, func(c *Config) { c.GuestHooks = dir })
	if _, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{SandboxId: "s1", GuestHookPath: dir + "/"}); err != nil {
		t.Fatal(err)
	}
	req := p.request("app1", "/bin/sleep", "1000")
	req.OCI.Mounts = req.OCI.Mounts[:3]
	p.create(req)
	raw, err := os.ReadFile(said)
	if err != nil || !strings.HasPrefix(string(raw), "prestart\n") || !strings.Contains(string(raw), `"id":"app1"`) {
		t.Errorf("%s, %v", raw, err)
	}
	p.remove("app1")
	if raw, err := os.ReadFile(said); err != nil || !strings.Contains(string(raw), "poststop\n") {
		t.Errorf("%s, %v", raw, err)
	}
}

// The host chooses no programs: hooks are off unless the measured command line
// names their directory, and that one only, and nobody else can change them.
func TestGuestHooksRefused(t *testing.T) {
	t.Parallel()
	dir, _ := hookDir(t)
	other, _ := hookDir(t)
	if err := os.Chmod(filepath.Join(other, "prestart/10-note"), 0o777); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		measured, asked string
		want            codes.Code
	}{
		"off":            {"", dir, codes.PermissionDenied},
		"another":        {dir, other, codes.PermissionDenied},
		"one of them":    {dir, dir + "/prestart", codes.PermissionDenied},
		"that can alter": {other, other, codes.Internal},
	} {
		p := newPod(t, func(c2 *Config) { c2.GuestHooks = c.measured })
		_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{SandboxId: "s1", GuestHookPath: c.asked})
		t.Log(name, err)
		wantCode(t, err, c.want)
	}
}
