package store

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// What an earlier process committed is kept for whoever asks for that, and for
// nobody else; what it did not finish is not.
func TestKeeping(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	first, err := Open(dir)
	must(t, err)
	commit(t, first, key("whole"), "f").Release()
	_, err = first.Stage()
	must(t, err)
	must(t, first.Close())

	second, err := Open(dir, Keeping())
	must(t, err)
	l := acquire(t, second, key("whole"))
	if _, err := os.Stat(filepath.Join(l.Dir(), "f")); err != nil {
		t.Error(err)
	}
	l.Release()
	if n := count(t, second, stagingDir); n != 0 {
		t.Errorf("%d unfinished layers were kept", n)
	}
	must(t, second.Close())

	// After the machine was started anew, nobody knows what reached the disk.
	must(t, os.WriteFile(filepath.Join(dir, layersDir, mustName(t, key("whole")), bootFile), []byte("another"), 0o600))
	third, err := Open(dir, Keeping())
	must(t, err)
	if n := count(t, third, layersDir); n != 0 {
		t.Errorf("%d layers of another boot were kept", n)
	}
	commit(t, third, key("whole"), "f").Release()
	must(t, third.Close())

	if n := count(t, openStore(t, dir), layersDir); n != 0 {
		t.Errorf("%d layers were kept, and nobody asked", n)
	}
}

func mustName(t testing.TB, k Key) string {
	t.Helper()
	name, err := k.name()
	must(t, err)
	return name
}

// Layers without owners become one directory as others do.
func TestFlattenWithoutOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("deletions in layers need root")
	}
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "store"), WithoutOwners())
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	mine := imagetest.File("o/above", "2")
	mine.Uid, mine.Gid = 7, 7
	low := layerOf(t, s, "low", imagetest.Dir("o"), imagetest.File("o/below", "1"), imagetest.File("gone", "1"))
	high := layerOf(t, s, "high", imagetest.Dir("o"), imagetest.File("o/.wh..wh..opq", ""), mine, imagetest.File(".wh.gone", ""))
	if opaqueBy(filepath.Join(high.Dir(), "o")) != unpack.XattrOpaqueUser {
		t.Error("the mark is another one")
	}
	target := filepath.Join(dir, "out")
	must(t, s.Flatten(t.Context(), []*Layer{low, high}, target))
	if got := names(t, target); len(got) != 1 {
		t.Errorf("it has %q", got)
	}
	if got := names(t, filepath.Join(target, "o")); len(got) != 1 || got[0] != "above" {
		t.Errorf("o has %q", got)
	}
	if opaque(filepath.Join(target, "o")) {
		t.Error("a mark stayed")
	}
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(target, "o/above"), &st))
	if st.Uid != 0 || st.Gid != 0 {
		t.Errorf("an owner was given: %d:%d", st.Uid, st.Gid)
	}
}
