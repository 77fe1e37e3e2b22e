package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Setenv("SECRET", "of the agent")
	root := t.TempDir()
	for name, text := range map[string]string{
		"usr/bin/echoes": `cat; echo "$@ $SECRET"`,
		"sbin/fails":     "echo out; echo first words >&2; yes words | head -c 4096 >&2; echo last >&2; exit 3",
		"sbin/endless":   "yes | head -c 2000000",
		"sbin/no":        "",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	s := Below(root)
	if err := os.Chmod(filepath.Join(root, "sbin/no"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run(t.Context(), "echoes", []byte("in "), "a", "b"); err != nil || string(out) != "in a b \n" {
		t.Errorf("%q, %v", out, err)
	}
	_, err := s.Run(t.Context(), "fails", nil)
	if err == nil || !strings.Contains(err.Error(), `last"`) || strings.Contains(err.Error(), "first words") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("%v", err)
	}
	if _, err := s.Run(t.Context(), "endless", nil); err == nil {
		t.Error("output without end is taken")
	}
	for _, name := range []string{"absent", "no"} {
		if _, err := s.Run(t.Context(), name, nil); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
