package qemu

import (
	"os"
	"path/filepath"
	"testing"
)

// What lies beside the state, such as sockets, is no part of a TPM.
func TestCopyTPM(t *testing.T) {
	state, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	for name, text := range map[string]string{stateFile: "seeds", "swtpm.log": "words"} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := CopyTPM(state, to); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(to)
	if raw, readErr := os.ReadFile(filepath.Join(to, stateFile)); err != nil || readErr != nil || len(list) != 1 || string(raw) != "seeds" {
		t.Errorf("%v, %q, %v, %v", list, raw, err, readErr)
	}
	for name, paths := range map[string][2]string{"no TPM": {t.TempDir(), to + "2"}, "a TPM is there": {state, to}} {
		if err := CopyTPM(paths[0], paths[1]); err == nil {
			t.Errorf("%s: copied", name)
		}
	}
}
