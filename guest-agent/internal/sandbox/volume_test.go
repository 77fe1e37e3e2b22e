package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const memoryVolume = GuestDir + "/sandbox/ephemeral/mem"

func memory(size string, options ...string) *agent.Storage {
	return &agent.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", Options: append(options, "size="+size), MountPoint: memoryVolume}
}

// A volume in memory gets another size; what its mount forbids stays forbidden.
func TestRemount(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	v, err := s.Prepare(t.Context(), "", []*agent.Storage{memory("1048576", "nosuid", "nodev", "noexec")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := s.Remount([]*agent.Storage{memory("4194304")}); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage(memoryVolume)
	if err != nil || u.Bytes != 4<<20 || u.BytesFree != u.Bytes || u.Inodes == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.translate(memoryVolume), &st); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []int64{unix.ST_NOSUID, unix.ST_NODEV, unix.ST_NOEXEC} {
		if st.Flags&flag == 0 {
			t.Errorf("flag %#x was lost", flag)
		}
	}
	var invalid *InvalidError
	elsewhere := memory("1")
	elsewhere.MountPoint = GuestDir + "/sandbox/shm"
	for name, st := range map[string]*agent.Storage{
		"no volume": elsewhere, "outside": {Driver: "ephemeral", Fstype: "tmpfs", MountPoint: "/tmp"},
		"another kind of change": memory("1", "bind"),
	} {
		if err := s.Remount([]*agent.Storage{st}); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsageIsConfined(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	if err := os.Symlink("/", filepath.Join(s.dir, sandboxDir, "link")); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for _, path := range []string{"/", "/proc", GuestDir + "/image", GuestDir + "/sandbox/link", GuestDir + "/sandbox/none", GuestDir + "/sandbox/../image", ""} {
		if _, err := s.Usage(path); !errors.As(err, &invalid) {
			t.Errorf("%q: %v", path, err)
		}
		if err := s.Grow(path, 0); !errors.As(err, &invalid) {
			t.Errorf("grow %q: %v", path, err)
		}
	}
}

// loopDisk attaches a file of the given size to a loop device.
func loopDisk(t *testing.T, size int64) (disk, file string) {
	t.Helper()
	needsRoot(t)
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("no loop device can be had: %v", err)
	}
	disk = string(out[:len(out)-1])
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", disk).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", disk, err, out)
		}
	})
	return disk, file
}

func mkfs(t *testing.T, disk string, args ...string) {
	t.Helper()
	if out, err := exec.Command("mkfs.ext4", append(append([]string{"-q"}, args...), disk)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

// A disk that has become larger gives its filesystem more room while it is in use.
func TestGrow(t *testing.T) {
	disk, file := loopDisk(t, 32<<20)
	mkfs(t, disk)
	s := newTestSandbox(t)
	const volume = GuestDir + "/sandbox/storage/vol"
	path := s.translate(volume)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(disk, path, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("losetup", "--set-capacity", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before, err := s.Usage(volume)
	if err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for name, size := range map[string]uint64{"beyond the disk": 65 << 20, "smaller": 16 << 20} {
		if err := s.Grow(volume, size); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err = s.Grow(volume, 48<<20)
	if errors.Is(err, unix.EPERM) {
		t.Skip("growing a filesystem needs CAP_SYS_RESOURCE")
	}
	if err != nil {
		t.Fatal(err)
	}
	between, _ := s.Usage(volume)
	if err := s.Grow(volume, 0); err != nil {
		t.Fatal(err)
	}
	after, err := s.Usage(volume)
	if err != nil || between.Bytes <= before.Bytes || after.Bytes <= between.Bytes {
		t.Errorf("%d, %d, %d bytes, %v", before.Bytes, between.Bytes, after.Bytes, err)
	}
	if err := s.Grow(GuestDir+"/sandbox", 0); err == nil {
		t.Error("grew what is no volume")
	}
}
