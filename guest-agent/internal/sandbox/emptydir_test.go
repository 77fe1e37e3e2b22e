package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A volume of the agent's own, its parts, and where they may lead.
func TestEmptyDir(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	prepared := func() *Volumes {
		v, err := s.Prepare(t.Context(), "app1", nil)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := prepared()
	whole, err := v.EmptyDir(t.Context(), "app1", EmptyDir{Volume: "data", Group: 2000})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.MountSource(whole); got != whole || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := prepared().MountSource(whole); err == nil {
		t.Error("another container may mount it")
	}
	for name, err := range map[string]error{
		"out":    os.Symlink("/etc", whole+"/out"),
		"up":     os.Symlink("..", whole+"/up"),
		"inside": errors.Join(os.Mkdir(whole+"/real", 0o700), os.Symlink("real", whole+"/inside")),
		"lost":   os.Symlink("nowhere", whole+"/lost"),
		"pipe":   unix.Mkfifo(whole+"/pipe", 0o600),
		"file":   os.WriteFile(whole+"/file", []byte("text"), 0o600),
	} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	var invalid *InvalidError
	for _, path := range []string{"out", "out/passwd", "up", "up/x", "lost", "lost/x", "pipe", "file/x", "/etc", "..", "a/../..", "a//b", strings.Repeat("x/", 5000) + "x", "a\x00"} {
		if at, err := v.EmptyDir(t.Context(), "app1", EmptyDir{Volume: "data", Path: path, Group: -1}); !errors.As(err, &invalid) {
			t.Errorf("%.32q: %s, %v", path, at, err)
		}
	}
	for _, d := range []EmptyDir{{Volume: "", Group: -1}, {Volume: "../x", Group: -1}, {Volume: "Data", Group: -1}, {Volume: "data", Group: -2}, {Volume: "data", Memory: true, Group: -1}} {
		if _, err := v.EmptyDir(t.Context(), "app1", d); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	inside, err := v.EmptyDir(t.Context(), "app1", EmptyDir{Volume: "data", Path: "inside/new/dir", Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(inside, &st); err != nil || st.Gid != 2000 || st.Mode&0o7777 != 0o2777 {
		t.Errorf("group %d, mode %o, %v", st.Gid, st.Mode, err)
	}
	if _, err := os.Stat(whole + "/real/new/dir"); err != nil {
		t.Error(err)
	}
	file, err := v.EmptyDir(t.Context(), "app1", EmptyDir{Volume: "data", Path: "file", Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "text" {
		t.Errorf("%q, %v", raw, err)
	}
	if err := v.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// Volumes of the pod stay until it ends, those of a container until it does.
func TestKeep(t *testing.T) {
	needsRoot(t)
	b := newVolume(t)
	s, err := New(Config{Dir: t.TempDir(), Devices: disks{"02/00": b}})
	if err != nil {
		t.Fatal(err)
	}
	list := []*agent.Storage{
		{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: GuestDir + "/sandbox/ephemeral/mem"},
		{Driver: "local", MountPoint: GuestDir + "/shared/containers/s1/rootfs/local/scratch"},
		onDisk(func(st *agent.Storage) { st.Shared = true }),
	}
	places := []string{"sandbox/ephemeral/mem", "shared/containers/s1/rootfs/local/scratch", strings.TrimPrefix(diskVolume, GuestDir+"/"), "volumes/dir-own", "volumes/dir-mem"}
	for round := range 2 {
		v, err := s.Prepare(t.Context(), "app1", list)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []EmptyDir{{Volume: "own", Path: "part", Group: -1}, {Volume: "mem", Memory: true, Group: -1}} {
			if _, err := v.EmptyDir(t.Context(), "app1", d); err != nil {
				t.Fatal(err)
			}
		}
		for _, place := range places {
			at := filepath.Join(s.dir, place, "word")
			if _, err := os.Stat(at); (err == nil) != (round == 1) {
				t.Errorf("round %d: %s: %v", round, place, err)
			}
			if err := os.WriteFile(at, nil, 0o600); err != nil {
				t.Error(err)
			}
		}
		v.Keep()
		v.Keep() // once is enough
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := mountsBelow(filepath.Join(s.dir, "app1")); err != nil || len(left) > 0 {
			t.Errorf("of the container %v is left, %v", left, err)
		}
	}
	if err := b.Unused(); !errors.Is(err, device.ErrBusy) {
		t.Errorf("the disk is given back: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := mountsBelow(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := b.Unused(); err != nil {
		t.Error(err)
	}
}

// A disk under a key is opened once for all containers that have it as a device, and
// under one key.
func TestOpenDisk(t *testing.T) {
	b := newVolume(t)
	shown, _ := loopDisk(t, 1<<20)
	v := &vault{clear: shown}
	s := newTestSandbox(t, func(c *Config) { c.Encrypted = v })
	prepared := func(id string) *Volumes {
		volumes, err := s.Prepare(t.Context(), id, nil)
		if err != nil {
			t.Fatal(err)
		}
		return volumes
	}
	key := Key{Location: "kbs:///a/b/c"}
	first, second := prepared("app1"), prepared("app2")
	for _, volumes := range []*Volumes{first, second} {
		got, err := volumes.OpenDisk(t.Context(), b, key)
		if want := block(t, shown); err != nil || got.Major != want.Major || got.Minor != want.Minor || got.Path != shown || v.node != b.Path || v.key != key {
			t.Errorf("%+v, want %+v, %v", got, want, err)
		}
	}
	var invalid *InvalidError
	if _, err := second.OpenDisk(t.Context(), b, Key{Location: "kbs:///another/key/1"}); !errors.As(err, &invalid) {
		t.Errorf("under another key: %v", err)
	}
	if err := errors.Join(first.Release(t.Context()), second.Release(t.Context())); err != nil {
		t.Error(err)
	}
	third := prepared("app3")
	if _, err := third.OpenDisk(t.Context(), b, Key{Location: "kbs:///another/key/1"}); err != nil {
		t.Error("after it was closed:", err)
	}
	if err := third.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a workload writes to its emptyDir is its own business, however it looks and
// however much it is: nothing in it is opened, or looked at, when a container comes.
func TestEmptyDirIsNotUnsealed(t *testing.T) {
	s := newTestSandbox(t)
	const place = GuestDir + "/shared/containers/s1/rootfs/local/scratch"
	v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{{Driver: "local", MountPoint: place}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.translate(place), "looks"), []byte("sealed.a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := errors.New("asked")
	open := func(string) (secret.Bytes, error) { return secret.Bytes{}, asked }
	if err := s.Unseal(place, open); err != nil {
		t.Error(err)
	}
	if err := v.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.MkdirAll(s.translate(place), 0o755), os.WriteFile(filepath.Join(s.translate(place), "looks"), []byte("sealed.a.b.c"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Unseal(place, open); !errors.Is(err, asked) {
		t.Error("the same where there is no such volume:", err)
	}
}
