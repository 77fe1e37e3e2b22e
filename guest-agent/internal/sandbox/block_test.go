package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// disks are the guest's disks by address.
type disks map[string]device.Block

func (d disks) Find(_ context.Context, a device.Address) (device.Block, error) {
	if b, ok := d[a.String()]; ok {
		return b, nil
	}
	return device.Block{}, device.ErrTimeout
}

func (d disks) Partition(_ context.Context, b device.Block, n int) (device.Block, error) {
	return d.Find(context.Background(), mustAddress("mmioblk", "/dev/vd"+string(rune('a'+n))))
}

func mustAddress(kind, text string) device.Address {
	a, err := device.ParseAddress(kind, text)
	if err != nil {
		panic(err)
	}
	return a
}

func block(t *testing.T, node string) device.Block {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	return device.Block{Name: filepath.Base(node), Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
}

// newVolume returns a disk with an ext4 filesystem.
func newVolume(t *testing.T) device.Block {
	t.Helper()
	node, _ := loopDisk(t, 8<<20)
	mkfs(t, node)
	return block(t, node)
}

const diskVolume = GuestDir + "/sandbox/storage/dm9s"

func onDisk(change ...func(*agent.Storage)) *agent.Storage {
	st := &agent.Storage{Driver: "blk", Source: "02/00", Fstype: "ext4", MountPoint: diskVolume}
	for _, c := range change {
		c(st)
	}
	return st
}

// A disk is mounted so that nothing on it is privileged, belongs to its group, is
// shared by who mounts it at the same place, and is gone after the last of them.
func TestDisk(t *testing.T) {
	b := newVolume(t)
	s := newTestSandbox(t, func(c *Config) { c.Devices = disks{"02/00": b} })
	st := onDisk(func(st *agent.Storage) { st.FsGroup = &agent.FSGroup{GroupId: 2000} })
	first, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st})
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Prepare(t.Context(), "app2", []*agent.Storage{st})
	if err != nil {
		t.Fatal(err)
	}
	path := s.translate(diskVolume)
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || fs.Type != unix.EXT4_SUPER_MAGIC || fs.Flags&(unix.ST_NOSUID|unix.ST_NODEV) != unix.ST_NOSUID|unix.ST_NODEV {
		t.Errorf("%+v, %v", fs, err)
	}
	var lost unix.Stat_t
	if err := unix.Stat(path+"/lost+found", &lost); err != nil || lost.Gid != 2000 || lost.Mode&unix.S_ISGID == 0 {
		t.Errorf("%+v, %v", lost, err)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + "/lost+found"); err != nil {
		t.Error("taken from who still uses it")
	}
	if err := second.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if err := b.Unused(); err != nil {
		t.Error(err)
	}
}

// Who names another content for a place gets none that is there already: a policy
// has judged the one, and not the other.
func TestAnotherVolumeAtTheSamePlace(t *testing.T) {
	s := newTestSandbox(t, func(c *Config) { c.Devices = disks{"02/00": newVolume(t), "03/00": newVolume(t)} })
	first, err := s.Prepare(t.Context(), "app1", []*agent.Storage{onDisk()})
	if err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for name, change := range map[string]func(*agent.Storage){
		"another disk": func(st *agent.Storage) { st.Source = "03/00" },
		"another hash": func(st *agent.Storage) {
			st.Options = []string{"X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=" + strings.Repeat("ab", 32), "X-kata.dmverity.hashoffset=4096"}
		},
		"an encrypted disk": func(st *agent.Storage) { st.DriverOptions = []string{"encryption_key=ephemeral"} },
		"another kind":      func(st *agent.Storage) { st.Fstype = "xfs" },
		"no writing":        func(st *agent.Storage) { st.Options = []string{"ro"} },
	} {
		second, err := s.Prepare(t.Context(), "app2", []*agent.Storage{onDisk(change)})
		if err == nil {
			err = second.Release(t.Context())
		}
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := first.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// When a later storage fails, the disk before it is given back.
func TestDiskIsRolledBack(t *testing.T) {
	b := newVolume(t)
	s := newTestSandbox(t, func(c *Config) { c.Devices = disks{"02/00": b} })
	bad := onDisk(func(st *agent.Storage) { st.Source, st.MountPoint = "05", GuestDir+"/sandbox/storage/other" })
	if _, err := s.Prepare(t.Context(), "app1", []*agent.Storage{onDisk(), bad}); !errors.Is(err, device.ErrTimeout) {
		t.Error(err)
	}
	if err := b.Unused(); err != nil {
		t.Error(err)
	}
}

// Only an empty disk gets a filesystem; what is there stays.
func TestDiskIsFormattedOnce(t *testing.T) {
	node, _ := loopDisk(t, 8<<20)
	s := newTestSandbox(t, func(c *Config) { c.Devices = disks{"0:1": block(t, node)} })
	st := onDisk(func(st *agent.Storage) {
		st.Driver, st.Source, st.DriverOptions = "scsi", "0:1", []string{"create_filesystem"}
	})
	for i := range 2 {
		v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(s.translate(diskVolume), "file")
		if _, err := os.Stat(file); (err == nil) != (i == 1) {
			t.Errorf("round %d: %v", i, err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// vault stands in for what encrypts disks: it mounts memory.
type vault struct {
	clear string // what OpenKey shows
	node  string
	key   Key
	how   Mount
}

func (v *vault) MountOn(_ context.Context, node string, dir *os.File) (string, error) {
	v.node = node
	return mountOn(dir, "tmpfs", "tmpfs", 0, "")
}

func (v *vault) MountKey(_ context.Context, node string, key Key, how Mount, dir *os.File) (string, error) {
	v.node, v.key, v.how = node, key, how
	return mountOn(dir, "tmpfs", "tmpfs", how.Flags, "")
}

// OpenKey shows another disk than the one that it opens.
func (v *vault) OpenKey(_ context.Context, node string, key Key, link string) error {
	v.node, v.key = node, key
	return os.Symlink(v.clear, link)
}

func (v *vault) Unmount(_ context.Context, path string) error {
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSymlink != 0 {
		return os.Remove(path)
	}
	return unmount(path)
}

// A disk that must be encrypted is never mounted otherwise.
func TestEncryptedDisk(t *testing.T) {
	b := newVolume(t)
	encrypted := onDisk(func(st *agent.Storage) {
		st.DriverOptions = []string{"encryption_key=ephemeral", "create_filesystem"}
		st.FsGroup = &agent.FSGroup{GroupId: 2000, GroupChangePolicy: types.FSGroupChangePolicy_OnRootMismatch}
	})
	without := newTestSandbox(t, func(c *Config) { c.Devices = disks{"02/00": b} })
	var invalid *InvalidError
	if _, err := without.Prepare(t.Context(), "app1", []*agent.Storage{encrypted}); !errors.As(err, &invalid) {
		t.Errorf("nothing can encrypt, and: %v", err)
	}
	v := &vault{}
	s := newTestSandbox(t, func(c *Config) { c.Devices, c.Encrypted = disks{"02/00": b}, v })
	volumes, err := s.Prepare(t.Context(), "app1", []*agent.Storage{encrypted})
	if err != nil || v.node != b.Path {
		t.Fatalf("%q, %v", v.node, err)
	}
	fi, err := os.Stat(s.translate(diskVolume))
	if err != nil || fi.Mode()&os.ModeSetgid == 0 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := volumes.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// Surprising sources, places and options of disks and shares.
func TestDiskRefused(t *testing.T) {
	b := newVolume(t)
	s := newTestSandbox(t, func(c *Config) { c.Devices = disks{"02/00": b} })
	if err := os.Symlink("/", filepath.Join(s.dir, sandboxDir, "escape")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, sharedDir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root := strings.Repeat("ab", 32)
	for name, change := range map[string]func(*agent.Storage){
		"the guest's memory":        func(st *agent.Storage) { st.Source = "/dev/mem" },
		"a mapping":                 func(st *agent.Storage) { st.Source = "/dev/dm-0" },
		"a file":                    func(st *agent.Storage) { st.Source = "/etc/passwd" },
		"a way out":                 func(st *agent.Storage) { st.MountPoint = GuestDir + "/sandbox/escape/tmp/x" },
		"over the agent":            func(st *agent.Storage) { st.MountPoint = GuestDir + "/image" },
		"over the guest":            func(st *agent.Storage) { st.MountPoint = "/usr" },
		"another container's root":  func(st *agent.Storage) { st.MountPoint = GuestDir + "/app2/rootfs" },
		"an unusual filesystem":     func(st *agent.Storage) { st.Fstype = "ntfs" },
		"no filesystem":             func(st *agent.Storage) { st.Fstype = "" },
		"a journal elsewhere":       func(st *agent.Storage) { st.Options = []string{"journal_path=/dev/vdb"} },
		"another device":            func(st *agent.Storage) { st.Fstype, st.Options = "erofs", []string{"device=/dev/vdb"} },
		"bind":                      func(st *agent.Storage) { st.Options = []string{"bind"} },
		"an unknown option of ours": func(st *agent.Storage) { st.Options = []string{"X-kata.new=1"} },
		"an unknown driver option":  func(st *agent.Storage) { st.DriverOptions = []string{"encryption_key=mine"} },
		"no partition":              func(st *agent.Storage) { st.Options = []string{"X-kata.partition-number=0"} },
		"a hash that is switched off": func(st *agent.Storage) {
			st.Options = []string{"X-kata.dmverity-enabled=false", "X-kata.dmverity.roothash=" + root}
		},
		"no hash":             func(st *agent.Storage) { st.Options = []string{"X-kata.dmverity-enabled=true"} },
		"nvdimm of the wrong": func(st *agent.Storage) { st.Driver = "nvdimm" },
		"a share's tag":       func(st *agent.Storage) { st.Driver, st.Fstype, st.Source = "virtio-fs", "virtiofs", "/etc" },
		"a share that is none": func(st *agent.Storage) {
			st.Driver, st.Fstype, st.Source = "virtio-fs", "tmpfs", "tag"
		},
		"a share over what was copied": func(st *agent.Storage) {
			st.Driver, st.Fstype, st.Source, st.MountPoint = "virtio-fs", "virtiofs", "kataShared", GuestDir+"/shared/containers/"
		},
	} {
		v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{onDisk(change)})
		if err == nil {
			t.Errorf("%s was taken", name)
			_ = v.Release(t.Context())
		}
	}
	held, err := os.OpenFile(b.Path, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	if _, err := s.Prepare(t.Context(), "app1", []*agent.Storage{onDisk()}); !errors.Is(err, device.ErrBusy) {
		t.Errorf("the guest's own: %v", err)
	}
}

// hasErofs says whether this kernel mounts EROFS; dm-verity is tried in a guest.
func hasErofs(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(raw), "\terofs\n") {
		t.Skip("needs a kernel with EROFS (make test-kernel has one)")
	}
	if _, err := exec.LookPath("losetup"); err != nil {
		t.Skip("needs losetup")
	}
}
