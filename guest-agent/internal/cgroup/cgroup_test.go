package cgroup

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

func mounts(t *testing.T, table string) []mountinfo.Mount {
	t.Helper()
	all, err := mountinfo.Parse([]byte(table))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDirs(t *testing.T) {
	const (
		v1   = "1 0 0:1 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
		two  = "2 0 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
		sub  = "3 0 0:3 /pod /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		v2   = "4 0 0:4 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		both = "5 0 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" + v1 + two
		tmp  = "6 0 0:5 / /tmp rw - tmpfs tmpfs rw,memory\n"
		odd  = "7 0 0:6 / /odd rw - cgroup cgroup \n" // no options, as of version 2's name
	)
	for name, c := range map[string]struct {
		table, mounts string
		want          Dirs
	}{
		"v1":                       {"2:memory:/a/b\n1:name=systemd:/init\n", v1 + tmp, Dirs{"memory": "/sys/fs/cgroup/memory/a/b"}},
		"v1, mounted from below":   {"2:memory:/pod/b\n", sub, Dirs{"memory": "/sys/fs/cgroup/memory/b"}},
		"v1, the mount itself":     {"2:memory:/pod\n", sub, Dirs{"memory": "/sys/fs/cgroup/memory"}},
		"two controllers":          {"3:cpu,cpuacct:/x\n", two, Dirs{"cpu": "/sys/fs/cgroup/cpu,cpuacct/x", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/x"}},
		"v2":                       {"0::/a:b\n", v2, Dirs{Unified: "/sys/fs/cgroup/a:b"}},
		"both":                     {"2:memory:/a\n0::/u\n", both, Dirs{"memory": "/sys/fs/cgroup/memory/a", Unified: "/sys/fs/cgroup/unified/u"}},
		"not mounted":              {"2:memory:/a\n", v2 + odd, Dirs{}},
		"no hierarchy's name":      {"0::/a\n", odd, Dirs{}},
		"elsewhere":                {"2:memory:/other\n", sub, Dirs{}},
		"beside":                   {"2:memory:/podx\n", sub, Dirs{}},
		"outside of our namespace": {"2:memory:/../other\n", v1, Dirs{}},
		"nothing":                  {"", v1, Dirs{}},
	} {
		paths, err := Parse(c.table)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := paths.Dirs(mounts(t, c.mounts)); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for _, bad := range []string{"x\n", "2:memory\n", "2:memory:a\n", "0::/a\n0::/b\n", "\n"} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("%q was understood: %v", bad, got)
		}
	}
}

func TestOf(t *testing.T) {
	d := Dirs{"memory": "/m", Unified: "/u"}
	for controller, want := range map[string]struct {
		dir string
		v2  bool
	}{"memory": {"/m", false}, "pids": {"/u", true}} {
		if dir, v2 := d.Of(controller); dir != want.dir || v2 != want.v2 {
			t.Errorf("%s: %q, %v", controller, dir, v2)
		}
	}
	if dir, _ := (Dirs{}).Of("memory"); dir != "" {
		t.Errorf("out of nothing %q", dir)
	}
}

func TestRead(t *testing.T) {
	if paths, err := Of(os.Getpid()); err != nil || len(paths) == 0 {
		t.Errorf("our own: %v, %v", paths, err)
	}
	long := filepath.Join(t.TempDir(), "cgroup")
	if err := os.WriteFile(long, []byte("0::/"+strings.Repeat("x", maxTable)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{long, long + ".absent"} {
		if paths, err := Read(file); err == nil {
			t.Errorf("%s: %d rows", file, len(paths))
		}
	}
}

// A directory that is found is at or below the place of a hierarchy's mount.
func FuzzDirs(f *testing.F) {
	f.Add("2:memory:/a/b\n0::/x\n", "25 20 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	f.Add("0::/\n", "1 0 0:1 /  rw - cgroup2 none rw\n") // mounted nowhere
	f.Fuzz(func(t *testing.T, table, mounted string) {
		paths, err := Parse(table)
		if err != nil {
			return
		}
		all, err := mountinfo.Parse([]byte(mounted))
		if err != nil {
			return
		}
		for name, dir := range paths.Dirs(all) {
			found := false
			for _, m := range all {
				at := filepath.Clean(m.Point)
				found = found || dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")
			}
			if !found {
				t.Errorf("%q of %q is in no hierarchy", dir, name)
			}
		}
	})
}
