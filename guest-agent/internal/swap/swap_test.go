package swap

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
)

// fake gives files in place of encrypted disks, and writes down what happens.
type fake struct {
	t      *testing.T
	did    []string
	failOn string
}

func (f *fake) note(what string) error {
	f.did = append(f.did, what)
	if f.failOn != "" && strings.HasPrefix(what, f.failOn) {
		return errors.New("failed as the test wants")
	}
	return nil
}

func (f *fake) Mount(_ context.Context, v securemount.Volume) error {
	if !v.Format || !v.Integrity || v.Key != "" || v.Filesystem != securemount.NoFilesystem {
		f.t.Errorf("a volume of another kind: %+v", v)
	}
	file := filepath.Join(f.t.TempDir(), "encrypted")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<20); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Symlink(file, v.MountPoint); err != nil {
		f.t.Fatal(err)
	}
	return f.note("mount " + v.Device.Path)
}

func (f *fake) Unmount(_ context.Context, path string) error {
	if err := f.note("unmount"); err != nil {
		return err
	}
	return os.Remove(path)
}

func (f *fake) space() *Space {
	return New(Config{
		Volumes: f, Dir: filepath.Join(f.t.TempDir(), "swap"),
		On: func(node string) error {
			raw, err := os.ReadFile(node)
			if err != nil || string(raw[4086:4096]) != "SWAPSPACE2" {
				f.t.Errorf("no header: %v", err)
			}
			return f.note("on")
		},
		Off: func(string) error { return f.note("off") },
	})
}

func TestSpace(t *testing.T) {
	f := &fake{t: t}
	s := f.space()
	b := device.Block{Name: "vdb", Path: "/dev/vdb"}
	if err := s.Add(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), b); !errors.Is(err, ErrInUse) {
		t.Errorf("a disk twice: %v", err)
	}
	f.failOn = "off" // no room to swap everything in: to be tried again
	if err := s.Close(t.Context()); err == nil {
		t.Error("a failure is not told")
	}
	f.failOn = ""
	if err := errors.Join(s.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if got, want := strings.Join(f.did, ", "), "mount /dev/vdb, on, off, off, unmount"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A disk that cannot be swapped to is given back.
func TestFailures(t *testing.T) {
	for _, failOn := range []string{"mount", "on"} {
		f := &fake{t: t, failOn: failOn}
		s := f.space()
		b := device.Block{Name: "vdb", Path: "/dev/vdb"}
		if err := s.Add(t.Context(), b); err == nil {
			t.Errorf("%s fails, and Add does not", failOn)
		}
		if failOn == "on" && f.did[len(f.did)-1] != "unmount" {
			t.Errorf("left: %v", f.did)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestHeader(t *testing.T) {
	if b, err := headerOf(40960, 4096); err != nil || len(b) != 4096 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, size := range []int64{0, 40959, 1 << 62} {
		if _, err := headerOf(size, 4096); err == nil {
			t.Errorf("%d bytes were taken", size)
		}
	}
}

// On a kernel with device-mapper (make test-kernel) a disk is really swapped to,
// encrypted.
func TestReal(t *testing.T) {
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
	if err := dm.Available(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node := strings.TrimSpace(string(out))
	defer func() { _ = exec.Command("losetup", "--detach", node).Run() }()
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Volumes: securemount.New(securemount.Config{}), Dir: filepath.Join(t.TempDir(), "swap")})
	b := device.Block{Name: filepath.Base(node), Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	if err := s.Add(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil || !strings.Contains(string(swaps), "/dev/mapper/vouchsafe-") {
		t.Errorf("%s, %v", swaps, err)
	}
	if err := b.Unused(); !errors.Is(err, device.ErrBusy) {
		t.Errorf("a host can have it given to a container: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Unused(); err != nil {
		t.Error(err)
	}
}
