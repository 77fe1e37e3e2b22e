// Package evidencetest finds the folder of real hardware evidence for tests. It
// lies beside the checkout, or where VOUCHSAFE_EVIDENCE says, and a test that
// wants it is skipped where it is absent: the main paths are tested without.
package evidencetest

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the folder, which may be absent.
func Dir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("VOUCHSAFE_EVIDENCE"); dir != "" {
		return dir
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir := here; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(filepath.Dir(dir), "shared", "evidence")
		}
	}
	return filepath.Join(here, "shared", "evidence")
}

// Need returns the folder, and skips the test where it is absent.
func Need(t testing.TB) string {
	t.Helper()
	dir := Dir(t)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the evidence folder is absent (%v); VOUCHSAFE_EVIDENCE names it", err)
	}
	return dir
}

// File returns a file of the folder, and skips the test where the folder is
// absent.
func File(t testing.TB, path ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{Need(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
