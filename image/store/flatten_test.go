package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// layerOf makes a layer of an archive.
func layerOf(t testing.TB, s *Store, name string, entries ...imagetest.Entry) *Layer {
	t.Helper()
	st, err := s.Stage()
	must(t, err)
	_, err = st.Unpack(t.Context(), bytes.NewReader(imagetest.Tar(t, entries...)), unpack.Limits{})
	must(t, err)
	l, err := st.Commit(key(name))
	must(t, err)
	return l
}

func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestFlatten(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("deletions in layers need root")
	}
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	low := layerOf(t, s, "low", imagetest.Dir("d"), imagetest.File("d/gone", "1"), imagetest.File("d/kept", "1"), imagetest.Dir("o"), imagetest.File("o/below", "1"), imagetest.File("f", "1"))
	high := layerOf(t, s, "high", imagetest.File("d/.wh.gone", ""), imagetest.File("d/new", "2"), imagetest.Dir("o"), imagetest.File("o/.wh..wh..opq", ""), imagetest.File("o/above", "2"), imagetest.File("f", "2"))
	target := filepath.Join(dir, "out")
	must(t, os.Mkdir(target, 0o700))
	must(t, s.Flatten(t.Context(), []*Layer{low, high, low}, target)) // the lowest once more, on top: it hides what it has
	if got := names(t, filepath.Join(target, "d")); !slices.Equal(got, []string{"gone", "kept", "new"}) {
		t.Errorf("d has %v", got)
	}
	if got := names(t, filepath.Join(target, "o")); !slices.Equal(got, []string{"above", "below"}) {
		t.Errorf("o has %v", got)
	}
	if b, err := os.ReadFile(filepath.Join(target, "f")); err != nil || string(b) != "1" {
		t.Errorf("f holds %q, %v", b, err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(target, "o"), unpack.XattrOpaque, make([]byte, 8)); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a mark of overlayfs stayed: %v", err)
	}
	low.Release() // nothing happens to who was told that it is released
	if n := count(t, s, layersDir) + count(t, s, stagingDir); n != 0 {
		t.Errorf("%d directories are left in the store", n)
	}
}

func TestFlattenRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	full := filepath.Join(dir, "full")
	must(t, os.MkdirAll(filepath.Join(full, "x"), 0o700))
	a := commit(t, s, key("a"), "a")
	second := acquire(t, s, key("a"))
	if err := s.Flatten(t.Context(), []*Layer{a}, filepath.Join(dir, "out")); err == nil {
		t.Error("somebody else's layer was taken")
	}
	second.Release()
	if err := s.Flatten(t.Context(), nil, filepath.Join(dir, "out")); err == nil {
		t.Error("nothing is no image")
	}
	if err := s.Flatten(t.Context(), []*Layer{a}, full); err == nil || len(names(t, full)) != 1 {
		t.Errorf("a full directory was taken: %v", err)
	}
	b, c := commit(t, s, key("b"), "b"), commit(t, s, key("c"), "c")
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Flatten(ended, []*Layer{b, c}, filepath.Join(dir, "out")); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"full", "store"}) {
		t.Errorf("left behind: %v", got)
	}
	if n := count(t, s, layersDir) + count(t, s, stagingDir); n != 0 {
		t.Errorf("%d directories are left in the store", n)
	}
}
