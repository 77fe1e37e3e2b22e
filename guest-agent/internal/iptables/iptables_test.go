package iptables

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// programs are scripts that stand in for iptables, and write down how they are
// called.
func programs(t *testing.T) Tables {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"iptables-save":     "echo '*filter'; echo COMMIT",
		"ip6tables-save":    "echo '*six'; echo \"$HOME\"",
		"iptables-restore":  "echo \"$@\" >" + dir + "/asked; cat >>" + dir + "/asked",
		"ip6tables-restore": "echo line 1 failed >&2; exit 2",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Tables{Dirs: []string{dir}}
}

func TestSaveAndRestore(t *testing.T) {
	p := programs(t)
	for six, want := range map[bool]string{false: "*filter\nCOMMIT\n", true: "*six\n\n"} {
		if got, err := p.Save(t.Context(), six); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := p.Restore(t.Context(), false, []byte("*nat\nCOMMIT\n")); err != nil {
		t.Fatal(err)
	}
	asked, err := os.ReadFile(filepath.Join(p.Dirs[0], "asked"))
	if err != nil || string(asked) != "--wait=5\n*nat\nCOMMIT\n" {
		t.Errorf("%q, %v", asked, err)
	}
	if _, err := p.Restore(t.Context(), true, nil); err == nil || !strings.Contains(err.Error(), "line 1 failed") {
		t.Errorf("a failure is not told: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	p := programs(t)
	var invalid *InvalidError
	for _, rules := range [][]byte{make([]byte, maxRules+1), []byte("a\x00b")} {
		if _, err := p.Restore(t.Context(), false, rules); !errors.As(err, &invalid) {
			t.Errorf("%d bytes: %v", len(rules), err)
		}
	}
	none := Tables{Dirs: []string{t.TempDir()}}
	if _, err := none.Save(t.Context(), false); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without the program: %v", err)
	}
}
