package store

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// unpacked commits a layer from an archive of these entries.
func unpacked(t testing.TB, s *Store, name string, entries ...tar.Header) *Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		h.Format = tar.FormatPAX
		must(t, w.WriteHeader(&h))
	}
	must(t, w.Close())
	st, err := s.Stage()
	must(t, err)
	_, err = st.Unpack(t.Context(), &buf, unpack.Limits{})
	must(t, err)
	l, err := st.Commit(key(name))
	must(t, err)
	return l
}

func TestReadOnlyBesideWritable(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	low, high := commit(t, s, key("low"), "low"), commit(t, s, key("high"), "high")
	base := t.TempDir()
	for name, layers := range map[string][]*Layer{"one": {low}, "two": {low, high}, "twice": {low, low}} {
		target := filepath.Join(base, name)
		m, err := s.MountReadOnly(layers, target)
		must(t, err)
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
		if b, err := os.ReadFile(filepath.Join(target, "low")); err != nil || string(b) != "low" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: written to: %v", name, err)
		}
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err == nil {
			if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: mounted anew, written to: %v", name, err)
			}
		}
		w := mountFor(t, s, layers, target+"-w")
		must(t, os.WriteFile(filepath.Join(target+"-w", "low"), []byte("changed"), 0o644))
		if b, err := os.ReadFile(filepath.Join(target, "low")); err != nil || string(b) != "low" {
			t.Errorf("%s: what is written there shows here: %q, %v", name, b, err)
		}
		must(t, w.Unmount())
		must(t, m.Unmount())
	}
	low.Release()
	high.Release()
	if n, err := s.GC(); n != 2 || err != nil || count(t, s, mountsDir) != 0 {
		t.Errorf("%d, %v; %d mounts left", n, err, count(t, s, mountsDir))
	}
}

// Device nodes of an image are there to see, and open nothing.
func TestDevicesOfAnImageOpenNothing(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	l := unpacked(t, s, "a", tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3})
	for name, mount := range map[string]func([]*Layer, string) (*Mount, error){"writable": s.Mount, "read-only": s.MountReadOnly} {
		target := filepath.Join(t.TempDir(), "rootfs")
		m, err := mount([]*Layer{l}, target)
		must(t, err)
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(target, "null"), &st))
		if f, err := os.Open(filepath.Join(target, "null")); !errors.Is(err, unix.EACCES) || st.Rdev != unix.Mkdev(1, 3) {
			_ = f.Close()
			t.Errorf("%s: %v", name, err)
		}
		must(t, m.Unmount())
	}
}

// What a layer does not say of a directory, the layers below say.
func TestImpliedDirectoriesShowTheLayersBelow(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	at := time.Unix(1_400_000_000, 5000)
	described := func(name string, mode int64, uid int) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: uid, ModTime: at, PAXRecords: map[string]string{"SCHILY.xattr.user.note": name}}
	}
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	low := unpacked(t, s, "low", described("tmp", 0o1777, 0), described("home", 0o711, 5), described("home/me", 0o700, 6),
		described("gone", 0o700, 7), described("hidden", 0o700, 7), described("own", 0o700, 7), file("home/me/old"))
	mid := unpacked(t, s, "mid", file("tmp/x"), file("home/me/a"), file("nobody/knows"), file(".wh.gone"), file("hidden/.wh..wh..opq"), described("own", 0o750, 8))
	high := unpacked(t, s, "high", file("tmp/y"), file("home/me/b"), file("gone/again"), file("own/c"), file("hidden/d"))
	layers := []*Layer{low, mid, high}
	for name, mount := range map[string]func([]*Layer, string) (*Mount, error){"writable": s.Mount, "read-only": s.MountReadOnly} {
		target := filepath.Join(t.TempDir(), "rootfs")
		m, err := mount(layers, target)
		must(t, err)
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
		for _, tt := range []struct {
			path      string
			mode      uint32
			uid       uint32
			described bool
		}{
			{"tmp", 0o1777, 0, true}, {"home", 0o711, 5, true}, {"home/me", 0o700, 6, true}, {"own", 0o750, 8, true},
			{"nobody", 0o755, 0, false}, {"gone", 0o755, 0, false}, {"hidden", 0o755, 0, false},
		} {
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(target, tt.path), &st))
			note := make([]byte, 20)
			n, _ := unix.Lgetxattr(filepath.Join(target, tt.path), "user.note", note)
			right := time.Unix(st.Mtim.Unix()).Equal(at) && string(note[:max(n, 0)]) == tt.path
			if st.Mode&0o7777 != tt.mode || st.Uid != tt.uid || st.Gid != tt.uid || right != tt.described {
				t.Errorf("%s: %s has mode %o, owner %d:%d, time and attributes of below: %v", name, tt.path, st.Mode, st.Uid, st.Gid, right)
			}
		}
		var have []string
		for _, dir := range []string{"tmp", "home/me", "gone", "own", "hidden"} {
			entries, err := os.ReadDir(filepath.Join(target, dir))
			must(t, err)
			for _, e := range entries {
				have = append(have, dir+"/"+e.Name())
			}
		}
		if got, want := strings.Join(have, " "), "tmp/x tmp/y home/me/a home/me/b home/me/old gone/again own/c hidden/d"; got != want {
			t.Errorf("%s: there is %s, want %s", name, got, want)
		}
		must(t, m.Unmount())
	}
}

// A layer that a restarted process finds under a mount still knows what it does
// not describe.
func TestImpliedDirectoriesOutliveTheProcess(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	entry := tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777}
	mountFor(t, s, []*Layer{unpacked(t, s, "low", entry), unpacked(t, s, "high", tar.Header{Typeflag: tar.TypeReg, Name: "tmp/x"})}, t.TempDir())
	must(t, s.Close())
	s = openStore(t, dir)
	target := t.TempDir()
	m := mountFor(t, s, []*Layer{acquire(t, s, key("low")), acquire(t, s, key("high"))}, target)
	if fi, err := os.Stat(filepath.Join(target, "tmp")); err != nil || fi.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	must(t, m.Unmount())
	must(t, s.Recovered()[0].Unmount())
}

func TestUnmountAfterOthersDid(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	l := commit(t, s, key("a"), "f")
	target := t.TempDir()
	m := mountFor(t, s, []*Layer{l}, target)
	if u, err := m.Usage(); err != nil || u.Inodes == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	before, err := m.Usage()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(target, "new"), make([]byte, 1<<20), 0o644))
	if after, err := m.Usage(); err != nil || after.Bytes < before.Bytes+1<<20 || after.Inodes != before.Inodes+1 {
		t.Errorf("a mount of %+v with a MiB more is %+v (%v)", before, after, err)
	}
	must(t, unix.Mount("over", target, "tmpfs", 0, ""))
	if err := m.Unmount(); err == nil || count(t, s, mountsDir) != 1 {
		t.Fatalf("removed under a live mount: %v", err)
	}
	must(t, unix.Unmount(target, 0)) // somebody else does it
	must(t, m.Unmount())
	must(t, m.Unmount())
	l.Release()
	if n, err := s.GC(); n != 1 || err != nil || count(t, s, mountsDir) != 0 {
		t.Errorf("%d, %v; %d mounts left", n, err, count(t, s, mountsDir))
	}
}

// What a container wrote may resist removal.
func TestUnmountReturnsTheSpace(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	target := t.TempDir()
	m := mountFor(t, s, []*Layer{commit(t, s, key("a"), "f")}, target)
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	at, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range 600 { // deeper than there are descriptors below
		must(t, unix.Mkdirat(at, "d", 0o755))
		next, err := unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(at))
		at = next
	}
	must(t, unix.Close(at))
	stubborn := filepath.Join(target, "stubborn")
	must(t, os.Mkdir(stubborn, 0o755))
	must(t, os.WriteFile(filepath.Join(stubborn, "f"), nil, 0o000))
	marked := 0
	for _, p := range []string{filepath.Join(stubborn, "f"), stubborn} {
		f, err := os.Open(p)
		must(t, err)
		if unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10) == nil {
			marked++
		}
		must(t, f.Close())
	}
	t.Logf("%d of 2 could be marked immutable", marked)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: was.Max}))
	err = m.Unmount()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	must(t, err)
	if n := count(t, s, mountsDir); n != 0 {
		t.Errorf("%d mounts left", n)
	}
}

// TestCrash kills a process that commits, mounts, unmounts and removes without
// end, over and over. What the next one finds, it can give back to the last byte.
func TestCrash(t *testing.T) {
	needMounts(t)
	const env = "VOUCHSAFE_STORE_TO_CRASH"
	if dir := os.Getenv(env); dir != "" {
		busy(t, dir)
		return
	}
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	var found int
	for round := range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCrash$")
		cmd.Env = append(os.Environ(), env+"="+dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		// It says something after each step; it dies in the midst of the next.
		steps := bufio.NewScanner(out)
		for range round*2 + 1 {
			if !steps.Scan() {
				t.Fatalf("it died by itself: %v", steps.Err())
			}
		}
		cancel()
		_ = cmd.Wait()

		s, err := Open(store)
		must(t, err)
		found += len(s.Recovered())
		exact(t, s, "after the crash")
		for _, m := range s.Recovered() {
			must(t, m.Unmount())
		}
		_, err = s.GC()
		must(t, err)
		if left := onDisk(t, store); left.Inodes != 4 || s.Usage() != (Usage{}) { // the lock and three directories
			t.Fatalf("round %d left %+v, of which the store knows %+v", round, left, s.Usage())
		}
		must(t, s.Close())
	}
	if found == 0 {
		t.Error("no crash left a mount: this test shows less than it says")
	}
}

// busy is the process that gets killed.
func busy(t *testing.T, dir string) {
	s, err := Open(filepath.Join(dir, "store"))
	must(t, err)
	say := func(step string) {
		_, err := fmt.Fprintln(os.Stdout, step)
		must(t, err)
	}
	for i := 0; ; i++ {
		a, b := sized(t, s, fmt.Sprint("a", i%3), 500), sized(t, s, fmt.Sprint("b", i), 100)
		say("committed")
		m, err := s.Mount([]*Layer{a, b}, filepath.Join(dir, fmt.Sprint("rw", i)))
		must(t, err)
		say("mounted")
		must(t, os.WriteFile(filepath.Join(m.Target(), "new"), make([]byte, 1<<20), 0o644))
		if i%2 == 1 {
			must(t, m.Unmount())
		} else {
			_, err = s.MountReadOnly([]*Layer{b}, filepath.Join(dir, fmt.Sprint("ro", i)))
			must(t, err)
			say("read-only")
		}
		a.Release()
		must(t, b.Discard())
		_, err = s.GC()
		must(t, err)
		say("collected")
	}
}
