package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// A disk that its owner has the key of is opened by that key, whatever the host
// says of it, and not at all without.
func TestKeyedDisk(t *testing.T) {
	b := newVolume(t)
	v := &vault{}
	s := newTestSandbox(t, func(c *Config) { c.Devices, c.Encrypted = disks{"02/00": b}, v })
	keys := map[string]Key{diskVolume: {Location: "kbs:///a/b/c", Format: true}}
	st := onDisk(func(st *agent.Storage) {
		st.DriverOptions, st.Options = []string{"create_filesystem"}, []string{"ro"}
		st.FsGroup = &agent.FSGroup{GroupId: 2000}
	})
	volumes, err := s.PrepareWith(t.Context(), "app1", []*agent.Storage{st}, keys)
	if err != nil {
		t.Fatal(err)
	}
	if v.node != b.Path || v.key != keys[diskVolume] || v.how.Filesystem != "ext4" || v.how.Flags != unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID {
		t.Errorf("%+v", v)
	}
	var invalid *InvalidError
	if _, err := s.Prepare(t.Context(), "app2", []*agent.Storage{st}); !errors.As(err, &invalid) {
		t.Errorf("it was shared as a disk in the clear: %v", err)
	}
	again, err := s.PrepareWith(t.Context(), "app2", []*agent.Storage{st}, keys)
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]Key{diskVolume: {Location: "kbs:///a/b/other", Format: true}}
	if _, err := s.PrepareWith(t.Context(), "app2", []*agent.Storage{st}, other); !errors.As(err, &invalid) {
		t.Errorf("it was shared as the volume of another key: %v", err)
	}
	if err := errors.Join(volumes.Release(t.Context()), again.Release(t.Context())); err != nil {
		t.Error(err)
	}
	elsewhere := onDisk(func(st *agent.Storage) { st.MountPoint += "x" })
	for name, list := range map[string][]*agent.Storage{
		"no storage":      nil,
		"another storage": {elsewhere},
		"no disk":         {{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: diskVolume}},
		"twice":           {st, st},
		"a random key":    {onDisk(func(st *agent.Storage) { st.DriverOptions = []string{"encryption_key=ephemeral"} })},
		"a partition":     {onDisk(func(st *agent.Storage) { st.Options = []string{"X-kata.partition-number=1"} })},
		"options":         {onDisk(func(st *agent.Storage) { st.Options = []string{"errors=continue"} })},
		"a layer":         {onDisk(func(st *agent.Storage) { st.Options = []string{"X-kata.multi-layer=true"} })},
	} {
		if v, err := s.PrepareWith(t.Context(), "app1", list, keys); err == nil {
			t.Errorf("%s was taken", name)
			_ = v.Release(t.Context())
		}
	}
	if left, err := mountsBelow(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// The host copies files beside volumes, never onto them, nor removes them.
func TestCopyFileKeepsOffVolumes(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	const place = GuestDir + "/shared/containers/app1-0011223344556677-data"
	volumes, err := s.Prepare(t.Context(), "app1", []*agent.Storage{{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: place + "/deep"}})
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(s.translate(place), "deep/kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for name, path := range map[string]string{"into it": place + "/deep/x", "deep into it": place + "/deep/x/y", "in its place": place + "/deep", "above it": place} {
		for _, mode := range []uint32{unix.S_IFREG | 0o644, unix.S_IFLNK | 0o777, unix.S_IFDIR | 0o755} {
			err := s.CopyFile(&agent.CopyFileRequest{Path: path, FileMode: mode, DirMode: 0o755, FileSize: 1, Data: []byte("x")})
			if !errors.As(err, &invalid) {
				t.Errorf("%s, mode %o: %v", name, mode, err)
			}
		}
	}
	if inside, err := os.ReadDir(filepath.Dir(kept)); err != nil || len(inside) != 1 || inside[0].Name() != "kept" {
		t.Errorf("in the volume are %v, %v", inside, err)
	}
	if err := s.CopyFile(&agent.CopyFileRequest{Path: place + "/beside", FileMode: unix.S_IFREG | 0o644, FileSize: 1, Data: []byte("x")}); err != nil {
		t.Error(err)
	}
	if err := volumes.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.CopyFile(&agent.CopyFileRequest{Path: place, FileMode: unix.S_IFREG | 0o644, FileSize: 1, Data: []byte("x")}); err != nil {
		t.Error("after it was gone:", err)
	}
}

// Nor does a link lead around that, whatever the directory is called.
func TestCopyFileKeepsOffVolumesBehindLinks(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	const place = GuestDir + "/shared/containers/app1-0011223344556677-data"
	volumes, err := s.Prepare(t.Context(), "app1", []*agent.Storage{{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: place + "/in here/deep"}})
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(s.translate(place), "in here/deep/kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.CopyFile(&agent.CopyFileRequest{Path: place + "/link", FileMode: unix.S_IFLNK | 0o777, Data: []byte(".")}); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for _, mode := range []uint32{unix.S_IFREG | 0o644, unix.S_IFLNK | 0o777} {
		err := s.CopyFile(&agent.CopyFileRequest{Path: place + "/link/in here", FileMode: mode, FileSize: 1, Data: []byte("x")})
		if !errors.As(err, &invalid) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if err := volumes.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Drivers that runtimes know, and this agent has not, are refused with the reason.
func TestUnsupportedDrivers(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	var invalid *InvalidError
	for _, driver := range []string{"9p", "blk-ccw", "nfs", ""} {
		if _, err := s.Prepare(t.Context(), "app1", []*agent.Storage{onDisk(func(st *agent.Storage) { st.Driver = driver })}); !errors.As(err, &invalid) {
			t.Errorf("%q: %v", driver, err)
		}
	}
}
