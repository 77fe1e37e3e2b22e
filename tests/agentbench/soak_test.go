package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/programs"
)

// A short form of `make soak-agent`: containers and pods come and go, and what
// the agent holds does not grow.
func TestSoakBriefly(t *testing.T) {
	if what := barepod.Missing("runc", "unshare"); what != "" {
		t.Skipf("needs %s", what)
	}
	bin := t.TempDir()
	if _, err := barepod.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	if err := programs.Build(t.Context(), bin, "tests/agentbench"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "agentbench"), "soak", "--bin", bin, "--cycles", "20").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

// The counts see what is left: a look at a process with a child, and at a cgroup.
func TestDescendants(t *testing.T) {
	before, err := descendants(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after, err := descendants(os.Getpid())
	if err != nil || after != before+1 {
		t.Errorf("%d became %d, %v", before, after, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
