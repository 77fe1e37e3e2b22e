package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// onDisk adds up what lies below, by other means than the store's.
func onDisk(t testing.TB, dir string) Usage {
	t.Helper()
	var all Usage
	seen := map[uint64]bool{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		all.Bytes += st.Blocks * 512
		all.Inodes++
		return nil
	}))
	return all
}

func exact(t testing.TB, s *Store, when string) {
	t.Helper()
	if got, want := s.Usage(), onDisk(t, s.path(layersDir)); got != want {
		t.Errorf("%s: the store says %+v, the disk %+v", when, got, want)
	}
}

// sized commits a layer of about kib KiB, with a hard link and a hole.
func sized(t testing.TB, s *Store, name string, kib int) *Layer {
	t.Helper()
	st, err := s.Stage()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(st.Dir(), "f"), bytes.Repeat([]byte("x"), kib<<10), 0o644))
	must(t, os.Link(filepath.Join(st.Dir(), "f"), filepath.Join(st.Dir(), "same")))
	must(t, os.Mkdir(filepath.Join(st.Dir(), "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(st.Dir(), "d", "hole"), nil, 0o644))
	must(t, os.Truncate(filepath.Join(st.Dir(), "d", "hole"), 1<<30))
	l, err := st.Commit(key(name))
	must(t, err)
	return l
}

func TestUsageIsExact(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	exact(t, s, "empty")
	a := sized(t, s, "a", 100)
	if u := a.Usage(); u.Inodes != 6 || u.Bytes < 100<<10 || u.Bytes > 200<<10 {
		t.Errorf("a layer of 6 inodes and 100 KiB occupies %+v", u)
	}
	exact(t, s, "one layer")
	b := sized(t, s, "b", 50)
	again := sized(t, s, "b", 50)
	exact(t, s, "two layers, one of them twice")
	must(t, again.Discard())
	exact(t, s, "the second is shared")
	must(t, b.Discard())
	exact(t, s, "the second is gone")
	if len(s.Layers()) != 1 {
		t.Errorf("%+v", s.Layers())
	}
	a.Release()
	exact(t, s, "nobody uses the first")
	_, err := s.GC()
	must(t, err)
	if s.Usage() != (Usage{}) || len(s.Layers()) != 0 {
		t.Errorf("after the GC: %+v", s.Usage())
	}
}

func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	s := openStore(t, t.TempDir())
	one := sized(t, s, "0", 100).Usage()
	for i := 1; i < 6; i++ {
		sized(t, s, fmt.Sprint(i), 100).Release()
	}
	acquire(t, s, key("1")).Release() // used again
	budget := Usage{Bytes: 3 * one.Bytes}
	if n, err := s.Collect(budget); n != 3 || err != nil {
		t.Fatalf("%d layers went, %v", n, err)
	}
	for name, there := range map[string]bool{"0": true /* held */, "1": true, "2": false, "3": false, "4": false, "5": true} {
		if got := acquire(t, s, key(name)) != nil; got != there {
			t.Errorf("layer %s: %v", name, got)
		}
	}
	exact(t, s, "after the collection")
	if n, err := s.Collect(Usage{Inodes: 1}); n != 0 || err != nil { // all are held now
		t.Errorf("%d layers in use went, %v", n, err)
	}
}

func TestBudget(t *testing.T) {
	probe := openStore(t, t.TempDir())
	one := sized(t, probe, "0", 100).Usage()
	s, err := Open(t.TempDir(), WithBudget(Usage{Inodes: 2 * one.Inodes}))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	held := []*Layer{sized(t, s, "0", 10), sized(t, s, "1", 10), sized(t, s, "2", 10)}
	if len(s.Layers()) != 3 {
		t.Fatal("layers in use count against the budget, and stay")
	}
	held[1].Release()
	held[0].Release()
	if l := s.Layers(); len(l) != 2 || acquire(t, s, key("1")) != nil {
		t.Errorf("over the budget: %+v", l)
	}
	sized(t, s, "3", 10)
	if acquire(t, s, key("0")) != nil || acquire(t, s, key("3")) == nil || acquire(t, s, key("2")) == nil {
		t.Error("a new layer must take the place of the one that nobody uses")
	}
	exact(t, s, "at the budget")
}

func TestShare(t *testing.T) {
	s, err := Open(filepath.Join(needTmpfs(t), "store"), InMemory(Usage{Bytes: 4 << 20, Inodes: 1000}), WithShare(50))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	for i := range 6 {
		sized(t, s, fmt.Sprint(i), 700).Release()
		exact(t, s, "within the share")
	}
	if n := len(s.Layers()); n != 2 {
		t.Errorf("%d layers of 0.7 MiB stay in half of 4 MiB", n)
	}
}

// Everybody takes, gives and collects at once; nothing that is held goes, and
// the books are right after it.
func TestBudgetUnderLoad(t *testing.T) {
	s, err := Open(t.TempDir(), WithBudget(Usage{Inodes: 20}))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for round := range 20 {
				l := sized(t, s, fmt.Sprint((i+round)%5), 4)
				if _, err := os.Stat(filepath.Join(l.Dir(), "same")); err != nil {
					t.Errorf("a layer in use: %v", err)
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	exact(t, s, "after all")
	if u := s.Usage(); u.exceeds(Usage{Inodes: 20}) || count(t, s, stagingDir) != 0 {
		t.Errorf("%+v, %d left in staging", u, count(t, s, stagingDir))
	}
}

func needTmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("probe", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("mounting needs root: %v", err)
	}
	must(t, unix.Unmount(dir, 0))
	return dir
}

func TestInMemory(t *testing.T) {
	dir := filepath.Join(needTmpfs(t), "store")
	open := func() *Store {
		s, err := Open(dir, InMemory(Usage{Bytes: 4 << 20, Inodes: 500}))
		must(t, err)
		t.Cleanup(func() { _ = s.Close(); _ = unix.Unmount(dir, unix.MNT_DETACH) })
		return s
	}
	s := open()
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	if fs.Type != unix.TMPFS_MAGIC || int64(fs.Blocks)*fs.Bsize != 4<<20 || fs.Files != 500 {
		t.Errorf("%+v", fs)
	}
	if _, err := Open(dir, InMemory(Usage{})); err == nil {
		t.Error("two owners at once")
	}
	sized(t, s, "a", 100)
	exact(t, s, "in memory")
	st, err := s.Stage()
	must(t, err)
	if err := os.WriteFile(filepath.Join(st.Dir(), "big"), make([]byte, 5<<20), 0o644); err == nil {
		t.Error("more than the limit")
	}
	must(t, st.Abort())
	must(t, s.Close())
	if there, err := tmpfsAt(dir); there || err != nil {
		t.Fatalf("the memory was not given back: %v", err)
	}
	s = open()
	if acquire(t, s, key("a")) != nil {
		t.Error("a layer outlived its memory")
	}
}

// Layers in memory that live mounts use stay with them, and go when they go.
func TestInMemoryOutlivesTheProcess(t *testing.T) {
	needMounts(t)
	dir, target := filepath.Join(needTmpfs(t), "store"), t.TempDir()
	s, err := Open(dir, InMemory(Usage{Bytes: 8 << 20}))
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	mountFor(t, s, []*Layer{sized(t, s, "a", 100)}, target)
	must(t, s.Close())
	s, err = Open(dir, InMemory(Usage{Bytes: 16 << 20}))
	must(t, err)
	if len(s.Recovered()) != 1 || acquire(t, s, key("a")) == nil {
		t.Fatal("the mount or its layer is lost")
	}
	exact(t, s, "after the restart")
	must(t, s.Recovered()[0].Unmount())
	must(t, s.Close())
	if there, err := tmpfsAt(dir); there || err != nil {
		t.Fatalf("the memory was not given back: %v", err)
	}
}
