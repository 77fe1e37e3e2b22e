package serialport

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a port does needs one: tests/boot talks to the agent over it.
func TestFind(t *testing.T) {
	class := t.TempDir()
	for port, name := range map[string]string{"vport0p1": "console.0\n", "vport0p2": "agent.0\n"} {
		if err := os.Mkdir(filepath.Join(class, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, port, "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := find(class, "agent.0"); err != nil || got != "/dev/vport0p2" {
		t.Errorf("%q, %v", got, err)
	}
	for _, dir := range []string{class, filepath.Join(class, "none")} {
		if got, err := find(dir, "agent"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q, %v", got, err)
		}
	}
}
