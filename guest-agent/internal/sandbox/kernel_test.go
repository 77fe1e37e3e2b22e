package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// needsMachine skips where what is tested needs the machine of make test-kernel.
func needsMachine(t *testing.T) {
	t.Helper()
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
}

// XFS grows while it is mounted, as ext4 does.
func TestGrowXFS(t *testing.T) {
	needsMachine(t)
	disk, file := loopDisk(t, 320<<20) // XFS has a least size of 300 MiB
	if out, err := exec.Command("mkfs.xfs", "-q", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v: %s", err, out)
	}
	s := newTestSandbox(t, func(c *Config) { c.Devices = disks{"02/00": block(t, disk)} })
	volumes, err := s.Prepare(t.Context(), "app1", []*agent.Storage{onDisk(func(st *agent.Storage) { st.Fstype = "xfs" })})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 640<<20); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for name, size := range map[string]uint64{"beyond the disk": 641 << 20, "smaller": 256 << 20} {
		if err := s.Grow(diskVolume, size); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sizes := []uint64{}
	for _, size := range []uint64{320 << 20, 480 << 20, 0, 0} {
		if err := s.Grow(diskVolume, size); err != nil {
			t.Fatal(err)
		}
		u, err := s.Usage(diskVolume)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, u.Bytes)
	}
	if sizes[1] <= sizes[0] || sizes[2] <= sizes[1] || sizes[3] != sizes[2] {
		t.Errorf("sizes %d", sizes)
	}
	if err := volumes.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// A share of a real server (virtiofsd, which build/onkernel starts): what the host
// has in it is seen, no device and no privileged program counts, and it is gone
// with its last user.
func TestRealShare(t *testing.T) {
	needsMachine(t)
	if os.Getenv("VOUCHSAFE_HAS_SHARE") == "" {
		t.Skip("the host has no virtiofsd to share with")
	}
	s := newTestSandbox(t)
	share := func(place string, options ...string) *agent.Storage {
		return &agent.Storage{Driver: "virtio-fs", Source: "kataShared", Fstype: "virtiofs", MountPoint: place, Options: options}
	}
	const all = GuestDir + "/shared/containers/"
	volumes, err := s.Prepare(t.Context(), "", []*agent.Storage{share(all)})
	if err != nil {
		t.Fatal(err)
	}
	dir := s.translate(all)
	if got, err := os.ReadFile(filepath.Join(dir, "from-the-host")); err != nil || string(got) != "hello\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "from-the-guest"), []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Flags&unix.ST_NODEV == 0 {
		t.Errorf("devices can be used: %+v, %v", fs, err)
	}
	if _, err := s.MountSource(all + "escape/etc"); err == nil {
		t.Error("a link of the host's leads out of its share")
	}
	const volume = GuestDir + "/sandbox/storage/one"
	second, err := s.Prepare(t.Context(), "app1", []*agent.Storage{share(volume, "ro")})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(s.translate(volume), &fs); err != nil || fs.Flags&(unix.ST_NOSUID|unix.ST_RDONLY) != unix.ST_NOSUID|unix.ST_RDONLY {
		t.Errorf("%+v, %v", fs, err)
	}
	missing := share(GuestDir + "/sandbox/storage/two")
	missing.Source = "absent"
	if _, err := s.Prepare(t.Context(), "app1", []*agent.Storage{missing}); err == nil {
		t.Error("a share that there is not was mounted")
	}
	if err := errors.Join(second.Release(t.Context()), volumes.Release(t.Context())); err != nil {
		t.Fatal(err)
	}
	if left, err := mountsBelow(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Persistent memory that QEMU emulates is a disk by its node.
func TestRealNVDIMM(t *testing.T) {
	needsMachine(t)
	if _, err := os.Stat("/dev/pmem0"); err != nil {
		t.Skip("this kernel has no driver for persistent memory")
	}
	s := newTestSandbox(t, func(c *Config) { c.Devices = device.New(device.Config{Timeout: time.Minute}) })
	st := onDisk(func(st *agent.Storage) {
		st.Driver, st.Source, st.DriverOptions = "nvdimm", "/dev/pmem0", []string{"create_filesystem"}
	})
	volumes, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.translate(diskVolume), "file"), []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	if u, err := s.Usage(diskVolume); err != nil || u.Bytes == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if err := volumes.Release(t.Context()); err != nil {
		t.Error(err)
	}
}
