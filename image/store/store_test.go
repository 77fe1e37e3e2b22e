package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func key(name string) Key { return Key{DiffID: digest.FromString(name)} }

// commit makes a layer with one file named after it.
func commit(t testing.TB, s *Store, k Key, file string) *Layer {
	t.Helper()
	st, err := s.Stage()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(st.Dir(), file), []byte(file), 0o644))
	l, err := st.Commit(k)
	must(t, err)
	return l
}

func acquire(t testing.TB, s *Store, k Key) *Layer {
	t.Helper()
	l, ok, err := s.Acquire(k)
	must(t, err)
	if !ok {
		return nil
	}
	return l
}

func count(t testing.TB, s *Store, dir string) int {
	t.Helper()
	e, err := os.ReadDir(s.path(dir))
	must(t, err)
	return len(e)
}

func TestLayerLife(t *testing.T) {
	s := openStore(t, t.TempDir()+"/store")
	a := key("a")
	if acquire(t, s, a) != nil {
		t.Fatal("a layer from nowhere")
	}
	st, err := s.Stage()
	must(t, err)
	if acquire(t, s, a) != nil || count(t, s, layersDir) != 0 {
		t.Fatal("a staged layer is visible")
	}
	must(t, st.Abort())
	if count(t, s, stagingDir) != 0 {
		t.Fatal("an aborted layer stays")
	}
	if _, err := st.Commit(a); err == nil {
		t.Fatal("an aborted layer was committed")
	}

	l := commit(t, s, a, "f")
	if filepath.Base(filepath.Dir(l.Dir())) != "sha256-"+a.DiffID.Encoded() {
		t.Errorf("the layer lies in %s", l.Dir())
	}
	second := acquire(t, s, a)
	l.Release()
	l.Release() // does not count twice
	if n, err := s.GC(); n != 0 || err != nil {
		t.Fatalf("GC took %d layers that are held (%v)", n, err)
	}
	second.Release()
	if acquire(t, s, a) == nil {
		t.Fatal("a released layer is gone before the GC")
	}
	acquire(t, s, a).Release()
}

func TestGC(t *testing.T) {
	s := openStore(t, t.TempDir())
	held, loose := commit(t, s, key("held"), "f"), commit(t, s, key("loose"), "f")
	loose.Release()
	if n, err := s.GC(); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if acquire(t, s, key("loose")) != nil || acquire(t, s, key("held")) == nil {
		t.Fatal("the GC took the wrong one")
	}
	_ = held
}

func TestSecondCommitIsTheFirst(t *testing.T) {
	s := openStore(t, t.TempDir())
	first, second := commit(t, s, key("a"), "first"), commit(t, s, key("a"), "second")
	if _, err := os.Stat(filepath.Join(second.Dir(), "first")); err != nil || first.Dir() != second.Dir() {
		t.Fatalf("the layer was exchanged under its holder: %v", err)
	}
	if count(t, s, stagingDir) != 0 {
		t.Error("the second one stays in staging")
	}
	must(t, second.Discard()) // not fresh: the first one goes on using it
	if _, err := os.Stat(first.Dir()); err != nil {
		t.Fatal(err)
	}
}

func TestDiscard(t *testing.T) {
	s := openStore(t, t.TempDir())
	l := commit(t, s, key("a"), "f")
	other := acquire(t, s, key("a"))
	must(t, l.Discard())
	if acquire(t, s, key("a")) == nil {
		t.Fatal("a layer in use was discarded")
	}
	_ = other
	l = commit(t, s, key("b"), "f")
	must(t, l.Discard())
	if acquire(t, s, key("b")) != nil || count(t, s, stagingDir) != 0 {
		t.Fatal("a discarded layer stays")
	}
}

// Knowing the diffID of an encrypted layer does not give its content.
func TestKeyIsPartOfTheName(t *testing.T) {
	s := openStore(t, t.TempDir())
	secretLayer := Key{DiffID: digest.FromString("a"), KeyID: strings.Repeat("0a", 16)}
	commit(t, s, secretLayer, "f")
	for _, k := range []Key{{DiffID: secretLayer.DiffID}, {DiffID: secretLayer.DiffID, KeyID: strings.Repeat("0b", 16)}} {
		if acquire(t, s, k) != nil {
			t.Errorf("%+v gives the layer of another key", k)
		}
	}
	for _, k := range []Key{{}, {DiffID: "sha256:../../etc"}, {DiffID: secretLayer.DiffID, KeyID: "../x"}} {
		if _, _, err := s.Acquire(k); err == nil {
			t.Errorf("%+v was accepted", k)
		}
	}
}

func TestOpenCleansUp(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	commit(t, s, key("left"), "f")
	_, err := s.Stage()
	must(t, err)
	must(t, os.Mkdir(s.path(mountsDir, "stale"), 0o700))
	must(t, os.WriteFile(s.path(mountsDir, "stale", holderFile), []byte(`{"target":"/","layers":["sha256-x"]}`), 0o600))
	must(t, os.Mkdir(s.path(layersDir, "planted"), 0o700))
	must(t, s.Close())
	s = openStore(t, dir)
	for _, d := range []string{layersDir, stagingDir, mountsDir} {
		if n := count(t, s, d); n != 0 {
			t.Errorf("%s still has %d entries", d, n)
		}
	}
}

func TestLayerOfAnotherBoot(t *testing.T) {
	s := openStore(t, t.TempDir())
	l := commit(t, s, key("a"), "f")
	must(t, os.WriteFile(s.path(layersDir, l.name, bootFile), []byte("another"), 0o600))
	if acquire(t, s, key("a")) != nil {
		t.Error("a layer of another boot is believed")
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o770))
	if _, err := Open(dir); err == nil {
		t.Error("a directory that others can write to")
	}
	must(t, os.Chmod(dir, 0o755))
	openStore(t, dir)
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the store is open to others: %v, %v", fi.Mode(), err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("two owners at once")
	}
	other := t.TempDir()
	must(t, os.Chmod(other, 0o700))
	must(t, os.Symlink("/tmp", filepath.Join(other, layersDir)))
	if _, err := Open(other); err == nil {
		t.Error("a link for the layers")
	}
}

func TestConcurrentUse(t *testing.T) {
	s := openStore(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			k := key(fmt.Sprint(i % 3))
			l, ok, err := s.Acquire(k)
			if err == nil && !ok {
				var st *Staging
				if st, err = s.Stage(); err == nil {
					l, err = st.Commit(k)
				}
			}
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := os.Stat(l.Dir()); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				l.Release()
			} else if err := l.Discard(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range s.Layers() {
		if l.References != 0 {
			t.Errorf("references left: %+v", l)
		}
	}
	if count(t, s, stagingDir) != 0 {
		t.Error("staging directories are left")
	}
}

func needMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("this kernel has no overlayfs: %v", err)
	}
	_ = unix.Close(fd)
}

func mountFor(t *testing.T, s *Store, layers []*Layer, target string) *Mount {
	t.Helper()
	m, err := s.Mount(layers, target)
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	return m
}

func TestMount(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir()+"/s")
	low, high := commit(t, s, key("low"), "low"), commit(t, s, key("high"), "high")
	must(t, os.WriteFile(filepath.Join(low.Dir(), "both"), []byte("low"), 0o644))
	must(t, os.WriteFile(filepath.Join(high.Dir(), "both"), []byte("high"), 0o644))
	must(t, os.Chmod(high.Dir(), 0o711))
	target := filepath.Join(t.TempDir(), "rootfs")
	// The same layer twice is fine: the upper one hides the lower one.
	m := mountFor(t, s, []*Layer{low, high, low, high}, target)
	other := mountFor(t, s, []*Layer{low, high}, target+"2")

	if b, err := os.ReadFile(filepath.Join(target, "both")); err != nil || string(b) != "high" {
		t.Errorf("%q, %v", b, err)
	}
	if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("the root has mode %v, %v", fi.Mode(), err)
	}
	must(t, os.WriteFile(filepath.Join(target, "low"), []byte("changed"), 0o644))
	must(t, os.Remove(filepath.Join(target, "both")))
	for _, f := range []string{filepath.Join(low.Dir(), "low"), filepath.Join(target+"2", "low")} {
		if b, err := os.ReadFile(f); err != nil || string(b) != "low" {
			t.Errorf("a write went through to %s: %q, %v", f, b, err)
		}
	}
	low.Release()
	high.Release()
	if n, err := s.GC(); n != 0 || err != nil {
		t.Errorf("the GC pulled %d layers from under a mount (%v)", n, err)
	}
	open, err := os.Open(filepath.Join(target, "low"))
	must(t, err)
	if err := m.Unmount(); err == nil {
		t.Error("unmounted while in use")
	}
	must(t, open.Close())
	must(t, m.Unmount())
	must(t, other.Unmount())
	if n, err := s.GC(); n != 2 || err != nil || count(t, s, mountsDir) != 0 {
		t.Errorf("GC: %d, %v; %d mounts left", n, err, count(t, s, mountsDir))
	}
}

func TestManyLayers(t *testing.T) {
	needMounts(t)
	s := openStore(t, filepath.Join(t.TempDir(), strings.Repeat("long", 40)))
	var layers []*Layer
	for i := range MaxLayers {
		layers = append(layers, commit(t, s, Key{DiffID: digest.FromString(fmt.Sprint(i)), KeyID: strings.Repeat("ab", 16)}, fmt.Sprint(i)))
	}
	target := t.TempDir()
	m := mountFor(t, s, layers, target)
	for _, f := range []string{"0", "250", "499"} {
		if _, err := os.Stat(filepath.Join(target, f)); err != nil {
			t.Error(err)
		}
	}
	must(t, m.Unmount())
	if _, err := s.Mount(append(layers, layers[0]), target); err == nil {
		t.Error("more layers than the kernel stacks")
	}
	if _, err := s.Mount(nil, target); err == nil {
		t.Error("no layers")
	}
}

func TestOpaqueRootHidesWhatIsBelow(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	low, high := commit(t, s, key("low"), "low"), commit(t, s, key("high"), "high")
	must(t, unix.Setxattr(high.Dir(), unpack.XattrOpaque, []byte("y"), 0))
	target := t.TempDir()
	m := mountFor(t, s, []*Layer{low, high}, target)
	if _, err := os.Stat(filepath.Join(target, "low")); err == nil {
		t.Error("what the layer deleted came back")
	}
	if _, err := os.Stat(filepath.Join(target, "high")); err != nil {
		t.Error(err)
	}
	must(t, m.Unmount())
}

func TestFailedMountLeavesNothing(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	l := commit(t, s, key("a"), "f")
	base := t.TempDir()
	if _, err := s.Mount([]*Layer{l}, filepath.Join(base, "no", "such", "parent")); err == nil {
		t.Fatal("mounted nowhere")
	}
	must(t, os.RemoveAll(l.Dir()))
	if _, err := s.Mount([]*Layer{l}, filepath.Join(base, "target")); err == nil {
		t.Fatal("mounted a layer that is gone")
	}
	if e, _ := os.ReadDir(base); len(e) != 0 || count(t, s, mountsDir) != 0 {
		t.Errorf("left behind: %v, %d mounts", e, count(t, s, mountsDir))
	}
}

// A process that dies leaves its mounts. The next one keeps their layers, and
// can unmount them.
func TestMountsOutliveTheProcess(t *testing.T) {
	needMounts(t)
	dir, target := t.TempDir(), t.TempDir()
	s := openStore(t, dir)
	mountFor(t, s, []*Layer{commit(t, s, key("a"), "f")}, target)
	commit(t, s, key("unused"), "f")
	must(t, s.Close())

	s = openStore(t, dir)
	if n := count(t, s, layersDir); n != 1 {
		t.Fatalf("%d layers after the restart, want the mounted one", n)
	}
	if _, err := os.Stat(filepath.Join(target, "f")); err != nil {
		t.Fatal(err)
	}
	left := s.Recovered()
	if len(left) != 1 || left[0].Target() != target {
		t.Fatalf("recovered %v", left)
	}
	must(t, left[0].Unmount())
	if n, err := s.GC(); n != 1 || err != nil {
		t.Fatalf("GC: %d, %v", n, err)
	}
}
