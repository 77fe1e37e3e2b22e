package sandbox

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// holder is a process, or what a test says of one.
type holder struct {
	pid   int
	alive error
}

func (h holder) PID() int     { return h.pid }
func (h holder) Alive() error { return h.alive }

// running is a process with mounts of its own.
type running struct{ *exec.Cmd }

func (r running) PID() int     { return r.Process.Pid }
func (r running) Alive() error { return r.Process.Signal(syscall.Signal(0)) }

func elsewhere(t *testing.T) running {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return running{cmd}
}

// threads tells of each of the process's threads where it is.
func threads(t *testing.T) map[string]string {
	t.Helper()
	all, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, task := range all {
		for _, what := range []string{"/cwd", "/root", "/ns/mnt"} {
			to, err := os.Readlink(task + what)
			if err != nil {
				t.Fatal(err)
			}
			at[task] += to + " "
		}
	}
	return at
}

// What another container has is had of its process, and every thread of the agent
// is afterwards where it was before. Above all none ends: the kernel would give
// the children that it has started to the main thread, where the reaper takes
// them for orphans (see container.Reaper).
func TestCloneFrom(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := elsewhere(t)
	before := threads(t)
	for range 32 {
		tree, err := cloneFrom(from, dir)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := os.ReadFile(fdPath(tree) + "/file"); err != nil || string(raw) != "theirs" {
			t.Errorf("%q, %v", raw, err)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		if _, err := cloneFrom(from, dir+"/none"); err == nil {
			t.Error("what is not there was had")
		}
	}
	after := threads(t)
	maps.DeleteFunc(after, func(task, _ string) bool { return before[task] == "" }) // new ones
	if !maps.Equal(before, after) {
		t.Errorf("threads were at %v, and are at %v", before, after)
	}
}

// A process that has ended lends nothing, whoever has its number now, and neither
// does one with the agent's own mounts.
func TestCloneFromTheEnded(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	ended := elsewhere(t)
	if err := ended.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = ended.Wait()
	alive := elsewhere(t)
	var invalid *InvalidError
	for name, from := range map[string]Holder{
		"ended":                  ended,
		"its number is in use":   holder{pid: alive.PID(), alive: ended.Alive()},
		"its number is our own":  holder{pid: os.Getpid(), alive: ended.Alive()},
		"the mounts are our own": holder{pid: os.Getpid()},
	} {
		if tree, err := cloneFrom(from, dir); !errors.As(err, &invalid) || tree != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
