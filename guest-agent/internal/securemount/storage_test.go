package securemount_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// podVolumes are what the agent mounts for containers.
type podVolumes struct{ securemount.Ephemeral }

func (p podVolumes) MountKey(ctx context.Context, node string, k sandbox.Key, how sandbox.Mount, dir *os.File) (string, error) {
	return p.Mounter.MountKey(ctx, node, k.Location, k.Format, securemount.Filesystem(how.Filesystem), how.Flags, dir)
}

func (p podVolumes) OpenKey(ctx context.Context, node string, k sandbox.Key, link string) error {
	return p.Mounter.OpenKey(ctx, node, k.Location, k.Format, link)
}

// oneKey is a broker with one resource.
type oneKey struct{ value []byte }

func (k oneKey) Resource(context.Context, string) (secret.Bytes, error) {
	return secret.New(bytes.Clone(k.value)), nil
}

func (k oneKey) Unseal(ctx context.Context, _ string) (secret.Bytes, error) {
	return k.Resource(ctx, "")
}

// oneDisk is plugged in wherever it is looked for.
type oneDisk struct{ device.Block }

func (d oneDisk) Find(context.Context, device.Address) (device.Block, error) { return d.Block, nil }

func (d oneDisk) Partition(context.Context, device.Block, int) (device.Block, error) {
	return device.Block{}, device.ErrTimeout
}

// A persistent volume of a pod keeps what containers write from one pod to the
// next, and the host sees none of it.
func TestGuestKeyedVolume(t *testing.T) {
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
	file := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 64<<20))
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	must(t, err)
	node := strings.TrimSpace(string(out))
	var st unix.Stat_t
	must(t, unix.Stat(node, &st))
	disk := oneDisk{device.Block{Name: filepath.Base(node), Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}}
	dir := t.TempDir()
	mounter := securemount.New(securemount.Config{Keys: oneKey{secret.Random(32).Reveal()}})
	s, err := sandbox.New(sandbox.Config{Dir: dir, Devices: disk, Encrypted: podVolumes{securemount.Ephemeral{Mounter: mounter}}})
	must(t, err)
	const name = "sandbox/storage/MDUvMDA"
	place := filepath.Join(sandbox.GuestDir, name)
	request := []*agent.Storage{{Driver: "blk", Source: "05/00", Fstype: "ext4", MountPoint: place, Shared: true}}
	content := bytes.Repeat([]byte("what lasts. "), 1000)
	for round, format := range []bool{true, false, true} {
		v, err := s.PrepareWith(t.Context(), "app", request, map[string]sandbox.Key{place: {Location: "kbs:///a/b/c", Format: format}})
		must(t, err)
		at := filepath.Join(dir, name, "f")
		if got, err := os.ReadFile(at); (err == nil) != (round > 0) || err == nil && !bytes.Equal(got, content) {
			t.Errorf("round %d: %d bytes, %v", round, len(got), err)
		}
		must(t, os.WriteFile(at, content, 0o600))
		must(t, v.Release(t.Context()))
	}
	raw, err := os.ReadFile(file)
	must(t, err)
	if bytes.Contains(raw, content[:24]) {
		t.Error("the host can read it")
	}
	must(t, s.Close(t.Context()))
	must(t, exec.Command("losetup", "--detach", node).Run())
}

// A volume in block mode keeps what is written to its device from one pod to the
// next, and the host sees none of it.
func TestGuestKeyedDevice(t *testing.T) {
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
	file := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 64<<20))
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	must(t, err)
	node := strings.TrimSpace(string(out))
	var st unix.Stat_t
	must(t, unix.Stat(node, &st))
	disk := device.Block{Name: filepath.Base(node), Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	mounter := securemount.New(securemount.Config{Keys: oneKey{secret.Random(32).Reveal()}})
	s, err := sandbox.New(sandbox.Config{Dir: t.TempDir(), Encrypted: podVolumes{securemount.Ephemeral{Mounter: mounter}}})
	must(t, err)
	content := bytes.Repeat([]byte("what lasts, raw."), 256) // one sector
	for round, format := range []bool{true, false, true} {
		v, err := s.Prepare(t.Context(), "app", nil)
		must(t, err)
		opened, err := v.OpenDisk(t.Context(), disk, sandbox.Key{Location: "kbs:///a/b/c", Format: format})
		must(t, err)
		if opened.Major == disk.Major {
			t.Errorf("round %d: the disk itself is given", round)
		}
		f, err := os.OpenFile(opened.Path, os.O_RDWR, 0)
		must(t, err)
		got := make([]byte, len(content))
		if _, err := f.ReadAt(got, 8192); err != nil || bytes.Equal(got, content) != (round > 0) {
			t.Errorf("round %d: %.16q, %v", round, got, err)
		}
		_, err = f.WriteAt(content, 8192)
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
		must(t, v.Release(t.Context()))
	}
	raw, err := os.ReadFile(file)
	must(t, err)
	if bytes.Contains(raw, content[:24]) {
		t.Error("the host can read it")
	}
	must(t, s.Close(t.Context()))
	must(t, exec.Command("losetup", "--detach", node).Run())
}

// A Kata runtime asks for an emptyDir on a disk (kata-agent 2.10), for two
// containers of a pod, and for another one after they are gone.
func TestGuestEmptyDir(t *testing.T) {
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
	dir := t.TempDir()
	mounter := securemount.New(securemount.Config{})
	s, err := sandbox.New(sandbox.Config{
		Dir: dir, Devices: device.New(device.Config{Timeout: time.Minute}), Encrypted: podVolumes{securemount.Ephemeral{Mounter: mounter}},
	})
	must(t, err)
	const name = "sandbox/storage/L2Rldi92ZGE"
	request := []*agent.Storage{{
		Driver: "blk", Source: "05/00", Fstype: "ext4", MountPoint: filepath.Join(sandbox.GuestDir, name),
		DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem"}, Shared: true,
		FsGroup: &agent.FSGroup{GroupId: 1234},
	}}
	file := filepath.Join(dir, name, "f")
	content := bytes.Repeat([]byte("what one container writes for the other. "), 1000)
	for range 2 {
		first, err := s.Prepare(t.Context(), "first", request)
		must(t, err)
		second, err := s.Prepare(t.Context(), "second", request)
		must(t, err)
		if _, err := os.Stat(file); err == nil {
			t.Error("a new emptyDir has the files of the last one")
		}
		must(t, os.WriteFile(file, content, 0o600))
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Dir(file), &st))
		if st.Gid != 1234 || st.Mode&0o777 != 0o777 {
			t.Errorf("the emptyDir has group %d and mode %o", st.Gid, st.Mode)
		}
		unix.Sync()
		raw, err := os.Open("/dev/vda")
		must(t, err)
		all, err := io.ReadAll(raw)
		must(t, err)
		must(t, raw.Close())
		if bytes.Contains(all, content[:40]) {
			t.Error("the host can read it")
		}
		must(t, first.Release(t.Context()))
		if len(mounter.List()) != 1 {
			t.Error("the emptyDir is gone while a container uses it")
		}
		must(t, second.Release(t.Context()))
		if len(mounter.List()) != 0 {
			t.Error("the emptyDir is left when the last container is gone")
		}
	}
	must(t, s.Close(t.Context()))
}

// Images can be kept on such a volume: image_disk of the agent's settings.
func TestGuestImageDisk(t *testing.T) {
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
	dir := t.TempDir()
	m := securemount.New(securemount.Config{})
	d, err := os.Open(dir)
	must(t, err)
	_, err = m.MountOn(t.Context(), securemount.Volume{
		Device: securemount.Device{Path: "/dev/vda"}, Format: true, Integrity: true, Filesystem: securemount.Ext4,
		MkfsOptions: []string{"-O", "^has_journal", "-m", "0", "-i", "65536"},
	}, d)
	must(t, err)
	must(t, d.Close())
	st, err := store.Open(dir, store.WithShare(50))
	must(t, err)
	must(t, st.Close())
	must(t, m.Close(t.Context()))
}
