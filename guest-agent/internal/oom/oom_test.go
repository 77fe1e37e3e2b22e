package oom

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What the kernel would not write is no number of kills.
func FuzzParseKills(f *testing.F) {
	f.Add([]byte("low 0\noom_kill 2\noom_group_kill 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n, err := parseKills(text); err == nil && !bytes.Contains(text, []byte("oom_kill ")) {
			t.Errorf("%d kills", n)
		}
	})
}

func TestParseKills(t *testing.T) {
	if n, err := parseKills([]byte("low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 0\n")); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	for _, text := range []string{"", "oom 1\n", "oom_kill x\n"} {
		if _, err := parseKills([]byte(text)); err == nil {
			t.Errorf("%q was understood", text)
		}
	}
}

// A cgroup of version 2 is a directory whose memory.events changes: what is not
// a kill is no event.
func TestVersion2(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "memory.events"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("oom 0\noom_kill 0\n")
	w, err := openV2(dir)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 8)
	w.done.Go(func() { w.run(sync.OnceFunc(func() { close(told) })) })
	write("oom 1\noom_kill 0\n")
	write("oom 1\noom_kill 1\n")
	<-told
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Error("one kill was told twice")
	}
}

// The kernel kills a process that wants more than its cgroup has, and says so;
// the end of the cgroup is no event.
func TestKilled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top, v2, err := memoryOf(os.Getpid())
	if err != nil {
		t.Skipf("this process is in no memory cgroup that can be found: %v", err)
	}
	dir, err := os.MkdirTemp(top, "vouchsafe-oom-")
	if err != nil {
		t.Skipf("no cgroup can be made here: %v", err)
	}
	removed := false
	t.Cleanup(func() {
		if !removed {
			_ = os.Remove(dir)
		}
	})
	limit := "/memory.limit_in_bytes"
	if v2 { // as in make test-kernel
		limit = "/memory.max"
	}
	if err := os.WriteFile(dir+limit, []byte("8388608"), 0); err != nil {
		t.Skipf("the memory of a cgroup cannot be limited here: %v", err)
	}
	cmd := exec.Command("/bin/sh", "-c", "echo $$ >"+dir+"/cgroup.procs && read x && head -c 64000000 /dev/zero | tail")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for raw := []byte(nil); len(raw) == 0; raw, _ = os.ReadFile(dir + "/cgroup.procs") {
		if t.Context().Err() != nil {
			t.Fatal("the process does not enter its cgroup")
		}
	}
	told := make(chan struct{})
	w, err := open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var kills []uint64 // as each look at the cgroup found
	look := w.read
	w.read = func() (uint64, error) {
		n, err := look()
		kills = append(kills, n)
		return n, err
	}
	w.done.Go(func() { w.run(sync.OnceFunc(func() { close(told) })) })
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	<-told
	_ = cmd.Wait()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	removed = true
	if !v2 {
		w.done.Wait() // the end of the cgroup ends the watch
		if n := len(kills); n < 2 || kills[n-1] != kills[n-2] {
			t.Errorf("the end of the cgroup was told as a lack of memory: %d", kills)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		q.Add("a")
		q.Add("b")
		q.Add("a")
		for _, want := range []string{"a", "b"} {
			if got, err := q.Next(t.Context()); err != nil || got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		}
		// A caller that gave up takes nothing from the one after it.
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Next(gone); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		q.Add("c")
		if _, err := q.Next(gone); err == nil {
			t.Error("a caller that is gone took an event")
		}
		got := make(chan string)
		go func() { c, _ := q.Next(t.Context()); d, _ := q.Next(t.Context()); got <- c + d }()
		synctest.Wait()
		q.Add("d")
		if all := <-got; all != "cd" {
			t.Error(all)
		}
		for i := range 2 * maxWaiting {
			q.Add(strconv.Itoa(i))
		}
		if len(q.waiting) != maxWaiting || q.waiting[0] != strconv.Itoa(maxWaiting) {
			t.Errorf("%d events wait, from %s", len(q.waiting), q.waiting[0])
		}
	})
}
