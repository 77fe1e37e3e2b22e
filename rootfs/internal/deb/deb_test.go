package deb_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/deb"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

func walk(t testing.TB, raw []byte) (map[string]deb.File, error) {
	t.Helper()
	out := map[string]deb.File{}
	err := deb.Walk(t.Context(), bytes.NewReader(raw), func(f deb.File, r io.Reader) error {
		out[f.Path] = f
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != f.Size {
			t.Errorf("%s: %d bytes, and its header says %d", f.Path, n, f.Size)
		}
		return err
	})
	return out, err
}

func TestWalk(t *testing.T) {
	got, err := walk(t, rootfstest.Deb(
		rootfstest.File{Path: "/usr/bin/su", Mode: 0o4755, Content: []byte("su")},
		rootfstest.File{Path: "/lib/link", Target: "../etc/passwd"}))
	if err != nil {
		t.Fatal(err)
	}
	if su := got["/usr/bin/su"]; su.Mode != fs.ModeSetuid|0o755 || su.Size != 2 {
		t.Errorf("su: %+v", su)
	}
	if l := got["/lib/link"]; l.Mode.Type() != fs.ModeSymlink || l.Target != "../etc/passwd" {
		t.Errorf("link: %+v", l)
	}
}

func TestRefused(t *testing.T) {
	whole := rootfstest.Deb(rootfstest.File{Path: "/a", Content: bytes.Repeat([]byte("a"), 3000)})
	for name, raw := range map[string][]byte{
		"empty":              nil,
		"no archive":         []byte("PK\x03\x04 and more"),
		"cut":                whole[:len(whole)/2],
		"no data":            rootfstest.Archive("debian-binary", []byte("2.0\n"), "control.tar.xz", []byte("c")),
		"another first":      rootfstest.Archive("data.tar", []byte("")),
		"another compressor": rootfstest.Archive("debian-binary", []byte("2.0\n"), "data.tar.bz2", []byte("BZh9")),
		"not what it says":   rootfstest.Archive("debian-binary", []byte("2.0\n"), "data.tar.xz", []byte("no xz")),
		"out of the root":    rootfstest.Deb(rootfstest.File{Path: "/../../etc/passwd", Content: []byte("x")}),
	} {
		if _, err := walk(t, raw); !errors.Is(err, deb.ErrPackage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a package holds, every path is one below the root.
func FuzzWalk(f *testing.F) {
	f.Add(rootfstest.Deb(rootfstest.File{Path: "/a", Content: []byte("a")}, rootfstest.File{Path: "/b", Target: "a"}))
	f.Add(rootfstest.Archive("debian-binary", []byte("2.0\n"), "data.tar", make([]byte, 1024)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_ = deb.Walk(t.Context(), bytes.NewReader(raw), func(file deb.File, _ io.Reader) error {
			if !fs.ValidPath(file.Path[1:]) && file.Path != "/" || file.Path[0] != '/' {
				t.Errorf("path %q", file.Path)
			}
			return nil
		})
	})
}
