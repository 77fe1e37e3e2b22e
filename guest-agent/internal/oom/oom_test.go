package oom

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

func TestLocate(t *testing.T) {
	const (
		v1   = "25 20 0:21 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
		sub  = "25 20 0:21 /pod /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		v2   = "26 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		both = "24 20 0:20 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" + v1
	)
	for name, c := range map[string]struct {
		cgroup, mounts string
		want           place
	}{
		"v1":                     {"3:cpu,cpuacct:/x\n2:memory:/a/b\n", v1, place{"/sys/fs/cgroup/memory/a/b", false}},
		"v1, mounted from below": {"2:memory:/pod/b\n", sub, place{"/sys/fs/cgroup/memory/b", false}},
		"v2":                     {"0::/a:b\n", v2, place{"/sys/fs/cgroup/a:b", true}},
		"both":                   {"2:memory:/a\n0::/u\n", both, place{"/sys/fs/cgroup/memory/a", false}},
	} {
		if got, err := locate([]byte(c.cgroup), table(t, c.mounts)); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, c := range map[string][2]string{
		"nothing": {"", ""}, "no mount": {"2:memory:/a\n", v2}, "elsewhere": {"2:memory:/other\n", sub},
		"beside": {"2:memory:/podx\n", sub}, "above": {"2:memory:/../other\n", v1}, "malformed": {"x\n2:memory\n", v2},
	} {
		if got, err := locate([]byte(c[0]), table(t, c[1])); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func table(t *testing.T, text string) []mountinfo.Mount {
	t.Helper()
	mounts, err := mountinfo.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return mounts
}

func FuzzLocate(f *testing.F) {
	f.Add([]byte("2:memory:/a/b\n0::/x\n"), []byte("25 20 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"))
	f.Add([]byte("0::/\n"), []byte("1 0 0:1 /  rw - cgroup2 none rw\n")) // mounted nowhere
	f.Fuzz(func(t *testing.T, cgroups, text []byte) {
		mounts, _ := mountinfo.Parse(text)
		if at, err := locate(cgroups, mounts); err == nil && !slices.ContainsFunc(mounts, func(m mountinfo.Mount) bool {
			return at.dir == path.Clean(m.Point) || strings.HasPrefix(at.dir, strings.TrimSuffix(path.Clean(m.Point), "/")+"/")
		}) {
			t.Errorf("%q is in no hierarchy", at.dir)
		}
		_, _ = parseKills(cgroups)
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
	at, err := ourMemory()
	if err != nil {
		t.Skipf("this process is in no memory cgroup that can be found: %v", err)
	}
	dir, err := os.MkdirTemp(at.dir, "vouchsafe-oom-")
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
	if at.v2 { // as in make test-kernel
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
	if !at.v2 {
		w.done.Wait() // the end of the cgroup ends the watch
		if n := len(kills); n < 2 || kills[n-1] != kills[n-2] {
			t.Errorf("the end of the cgroup was told as a lack of memory: %d", kills)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func ourMemory() (place, error) {
	cgroups, err := readLimited("/proc/" + strconv.Itoa(os.Getpid()) + "/cgroup")
	if err != nil {
		return place{}, err
	}
	mounts, err := mountinfo.Self()
	if err != nil {
		return place{}, err
	}
	return locate(cgroups, mounts)
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
