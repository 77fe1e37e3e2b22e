package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// volumeAt mounts a volume as a container that is just created does, and returns
// what finds out whether anything of it was changed.
func volumeAt(t *testing.T, path string) (changed func() string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=0711,size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(path, "kept"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() string { return changes(path) }
}

func changes(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	inside, err := os.ReadDir(path)
	switch {
	case err != nil:
		return err.Error()
	case st.Mode&0o7777 != 0o711 || st.Uid != 0:
		return "it has another mode, or owner"
	case len(inside) != 1 || inside[0].Name() != "kept":
		return "other files are in it"
	}
	return ""
}

// A volume that is mounted between the moment at which the place for a file was
// found free and the moment at which the file is put there is not touched.
func TestCopyFileMeetsAMount(t *testing.T) {
	needsRoot(t)
	for _, at := range []string{"v", "v/x", "v/x/deep"} {
		for name, mode := range map[string]uint32{"file": unix.S_IFREG | 0o644, "directory": unix.S_IFDIR | 0o755, "link": unix.S_IFLNK | 0o777} {
			t.Run(name+" at "+at, func(t *testing.T) {
				s := newTestSandbox(t)
				copyAll(t, s, directory("v"), directory("v/x"))
				req := &agent.CopyFileRequest{Path: shared + "v/x", FileMode: mode, Uid: 1000, Gid: 1000, FileSize: 1, Data: []byte("x")}
				c, err := s.copier("v/x", req)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.dir.Close() }()
				volume := filepath.Join(s.dir, sharedDir, at)
				changed := volumeAt(t, volume)
				err = map[string]func() error{"file": c.file, "directory": c.directory, "link": c.symlink}[name]()
				t.Log(err)
				if what := changed(); what != "" {
					t.Error(what)
				}
				if err := unix.Unmount(volume, unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
				if left, _ := filepath.Glob(filepath.Join(s.dir, sharedDir, "v/.incoming-*")); len(left) > 0 {
					t.Errorf("left %v", left)
				}
			})
		}
	}
}

// The same, with whatever moments come.
func TestCopyFileRacesMounts(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	const at = GuestDir + "/shared/containers/v/x"
	end := make(chan struct{})
	var busy atomic.Bool // a volume is there: now it is tried to put something in its place
	var copying sync.WaitGroup
	for _, mode := range []uint32{unix.S_IFREG | 0o644, unix.S_IFDIR | 0o755, unix.S_IFLNK | 0o777} {
		copying.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				now := uint32(unix.S_IFDIR | 0o755)
				if busy.Load() {
					now = mode
				}
				for path, mode := range map[string]uint32{at: now, at + "/below": unix.S_IFDIR | 0o755, at + "/below/it": mode} {
					_ = s.CopyFile(&agent.CopyFileRequest{Path: path, FileMode: mode, DirMode: 0o755, Uid: 1000, FileSize: 1, Data: []byte("x")})
				}
			}
		})
	}
	mounted := 0
	for range 300 {
		v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: at, Options: []string{"mode=0711", "size=64k"}}})
		if err != nil {
			continue // a file of the host's was in the way
		}
		mounted++
		busy.Store(true)
		if err := os.WriteFile(filepath.Join(s.translate(at), "kept"), nil, 0o600); err != nil {
			t.Error(err)
		}
		for range 10 {
			_ = s.CopyFile(&agent.CopyFileRequest{Path: at + "/beside", FileMode: unix.S_IFREG, FileSize: 1, Data: []byte("x")})
		}
		if what := changes(s.translate(at)); what != "" {
			t.Error(what)
		}
		busy.Store(false)
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(end)
	copying.Wait()
	if mounted == 0 {
		t.Error("no volume was ever mounted")
	}
}

// What is mounted in a tree outlives the removal of the tree.
func TestRemoveAllKeepsMounts(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := beneath{f}
	changed := volumeAt(t, filepath.Join(dir, "tree/a/volume"))
	if err := os.WriteFile(filepath.Join(dir, "tree/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/dev/null", filepath.Join(dir, "tree/file"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tree", "tree/file"} {
		if err := b.removeAll(name); !errors.Is(err, errMounted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if what := changed(); what != "" {
		t.Error(what)
	}
	for _, at := range []string{"tree/file", "tree/a/volume"} {
		if err := unix.Unmount(filepath.Join(dir, at), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.removeAll("tree"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tree")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", maxDepth+2)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.removeAll("d"); err == nil {
		t.Error("a tree of any depth was removed")
	}
}

// The agent's directory may have any name: what is mounted in a bundle keeps it.
func TestBundlesWithBlanks(t *testing.T) {
	needsRoot(t)
	dir := filepath.Join(t.TempDir(), "a b\tc")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := newTestSandbox(t, func(c *Config) { c.Dir = dir })
	bundle, err := s.NewBundle("app1")
	if err != nil {
		t.Fatal(err)
	}
	changed := volumeAt(t, filepath.Join(bundle, "rootfs"))
	if err := s.RemoveBundle("app1"); err == nil {
		t.Error("a bundle was removed with what is mounted in it")
	}
	if what := changed(); what != "" {
		t.Error(what)
	}
}
