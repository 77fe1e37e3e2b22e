package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// overOne is an overlay of one directory, as a container's root.
func overOne(options ...string) *agent.Storage {
	return &agent.Storage{
		Driver: "overlayfs", Source: "none", Fstype: "overlay", MountPoint: ownRoot,
		Options: append([]string{"lowerdir=" + GuestDir + "/sandbox/layers/a:" + GuestDir + "/sandbox/layers/b"}, options...),
	}
}

func TestOverlay(t *testing.T) {
	needsRoot(t)
	s := withBundle(t, nil)
	for _, name := range []string{"a", "b"} {
		dir := s.translate(GuestDir + "/sandbox/layers/" + name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, writable := range []bool{true, false} {
		st := overOne()
		if writable {
			st.Options = append(st.Options, overlayWritable)
		}
		st.DriverOptions = []string{overlayCreate + GuestDir + "/sandbox/layers/made"}
		v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			if raw, err := os.ReadFile(filepath.Join(v.Rootfs, name)); err != nil || string(raw) != name {
				t.Errorf("%q, %v", raw, err)
			}
		}
		if err := os.WriteFile(filepath.Join(v.Rootfs, "new"), nil, 0o600); (err == nil) != writable {
			t.Errorf("writable %v: %v", writable, err)
		}
		if _, err := os.Stat(s.translate(GuestDir + "/sandbox/layers/made")); err != nil {
			t.Error(err)
		}
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.translate(GuestDir + "/sandbox/layers/a/new")); err == nil {
			t.Error("written to what lies below")
		}
	}
}

func TestOverlayRefused(t *testing.T) {
	needsRoot(t)
	s := withBundle(t, nil)
	if err := os.Symlink("/etc", s.translate(GuestDir+"/sandbox/link")); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{
		"nothing below":         {},
		"outside":               {"lowerdir=/etc"},
		"by a link":             {"lowerdir=" + GuestDir + "/sandbox/link"},
		"the agent's":           {"lowerdir=" + GuestDir + "/image"},
		"one of several":        {"lowerdir=" + GuestDir + "/sandbox:/etc"},
		"written outside":       {"lowerdir=" + GuestDir + "/sandbox/x", "upperdir=/etc", "workdir=/tmp"},
		"half a place to write": {"lowerdir=" + GuestDir + "/sandbox/x", "upperdir=" + GuestDir + "/sandbox/u"},
		"made outside":          {"lowerdir=" + GuestDir + "/sandbox/x", overlayCreate + "/etc/x"},
		"another option":        {"lowerdir=" + GuestDir + "/sandbox/x", "redirect_dir=on"},
	} {
		st := overOne()
		st.Options = options
		if v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st}); err == nil {
			t.Errorf("%s was taken", name)
			_ = v.Release(t.Context())
		}
	}
}

// Large pages are set aside for a volume, and given back.
func TestHugePages(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	pool := filepath.Join(dir, "hugepages-2048kB/nr_hugepages")
	if err := os.MkdirAll(filepath.Dir(pool), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pool, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newTestSandbox(t, func(c *Config) { c.HugePages = dir })
	st := &agent.Storage{
		Driver: "ephemeral", Source: "nodev", Fstype: "hugetlbfs", Options: []string{"pagesize=2Mi", "size=8388608"},
		MountPoint: GuestDir + "/sandbox/ephemeral/huge", FsGroup: &agent.FSGroup{GroupId: 2000},
	}
	count := func() string {
		raw, err := os.ReadFile(pool)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(raw))
	}
	v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st})
	if err != nil {
		if strings.Contains(err.Error(), "no such device") || strings.Contains(err.Error(), "invalid argument") {
			t.Skipf("this kernel has no pages of 2 MB: %v", err)
		}
		t.Fatal(err)
	}
	if count() != "5" {
		t.Errorf("%s pages", count())
	}
	if err := v.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if count() != "1" {
		t.Errorf("%s pages are left", count())
	}
	for name, options := range map[string][]string{
		"no size": {"pagesize=2Mi"}, "no page": {"size=8388608"}, "another page": {"pagesize=3Mi", "size=8388608"},
		"more than there is": {"pagesize=2Mi", "size=1000000G"}, "not in the guest": {"pagesize=4Mi", "size=8388608"}, "an option": {"pagesize=2Mi", "size=8388608", "uid=0"},
		"too many digits": {"pagesize=2Mi", "size=99999999999999999999"},
	} {
		st.Options = options
		if v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st}); err == nil {
			t.Errorf("%s was taken", name)
			_ = v.Release(t.Context())
		}
		if count() != "1" {
			t.Errorf("%s: %s pages are left", name, count())
		}
	}
}
