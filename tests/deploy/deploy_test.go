// Package deploy tests what is in the folder deploy.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The units are what systemd understands, and the service can do little.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	service := strings.Replace(read(t, "deploy/systemd/kbs.service"), "/usr/bin/kbs serve", "/bin/true serve", 1)
	for name, text := range map[string]string{"kbs.service": service, "kbs-guests.socket": read(t, "deploy/systemd/kbs-guests.socket")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", filepath.Join(dir, "kbs.service"), filepath.Join(dir, "kbs-guests.socket"))
	out, err := verify.CombinedOutput()
	if err != nil || strings.Contains(string(out), dir+"/kbs") {
		t.Errorf("%v: %s", err, out)
	}
	security := exec.CommandContext(t.Context(), analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", filepath.Join(dir, "kbs.service"))
	if out, err := security.CombinedOutput(); err != nil {
		t.Errorf("the exposure is above 2.0: %v: %s", err, out)
	}
}
