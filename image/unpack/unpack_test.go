package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making devices and trusted attributes needs root")
	}
}

type entry struct {
	tar.Header
	body string
}

var sometime = time.Unix(1_500_000_000, 123_000_000)

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.body))
		if h.ModTime.IsZero() {
			h.ModTime = sometime
		}
		h.Format = tar.FormatPAX
		if h.Typeflag == tar.TypeXGlobalHeader {
			h.ModTime = time.Time{}
		}
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, e.body)
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}
func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}
func symlink(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}
func link(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}
func withXattr(e entry, name, value string) entry {
	e.PAXRecords = map[string]string{xattrRecord + name: value}
	return e
}

// place is a layer directory inside a directory that must not change.
type place struct{ outer, layer string }

func newPlace(t testing.TB) place {
	t.Helper()
	outer := t.TempDir()
	p := place{outer, filepath.Join(outer, "layer")}
	must(t, os.Mkdir(p.layer, 0o755))
	must(t, os.WriteFile(filepath.Join(outer, "outside"), []byte("precious"), 0o600))
	return p
}

// outside describes everything around the layer.
func (p place) outside(t testing.TB) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(p.outer, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == p.layer {
			return fs.SkipDir
		}
		if path == p.outer {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, _ := os.ReadFile(path)
		all = append(all, fmt.Sprintf("%s %v %d %q", path, info.Mode(), info.ModTime().UnixNano(), b))
		return nil
	}))
	sort.Strings(all)
	return strings.Join(all, "\n")
}

func (p place) apply(t testing.TB, raw []byte) error {
	t.Helper()
	before := p.outside(t)
	_, err := Apply(t.Context(), bytes.NewReader(raw), p.layer, Limits{})
	if after := p.outside(t); after != before {
		t.Fatalf("the archive reached outside:\n%s\nwas\n%s", after, before)
	}
	return err
}

func (p place) stat(t testing.TB, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(p.layer, name), &st); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return st
}

func (p place) xattr(name, attr string) string {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(filepath.Join(p.layer, name), attr, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func (p place) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.layer, name))
	must(t, err)
	return string(b)
}

func TestMetadata(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep, version 2
	owned := func(e entry, uid, gid int, mode int64) entry {
		e.Uid, e.Gid, e.Mode = uid, gid, mode
		return e
	}
	err := p.apply(t, archive(t,
		owned(dir("./"), 3, 4, 0o711),
		owned(dir("tmp"), 0, 0, 0o1777),
		owned(dir("sgid"), 7, 8, 0o2750),
		owned(withXattr(file("suid", "x"), "security.capability", capability), 100000, 200000, 0o4755),
		withXattr(file("deep/er/file", "hello"), "user.note", "hi"),
		withXattr(dir("noted"), "user.note", "dir"),
		withXattr(file("labelled", ""), "security.selinux", "system_u:object_r:bin_t:s0"),
		withXattr(file("mac", ""), "com.apple.provenance", "x"),
		owned(symlink("abs", "/etc/passwd"), 5, 6, 0o777),
		entry{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o660, Devmajor: 8, Devminor: 300}, ""},
		entry{tar.Header{Typeflag: tar.TypeBlock, Name: "block00", Mode: 0o600}, ""},
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o622}, ""},
		link("hard", "deep/er/file"), link("hardabs", "/suid"), link("hardsym", "abs"),
		file("tmp/later", "changes the time of tmp"),
	))
	must(t, err)
	tests := []struct {
		name     string
		mode     uint32
		uid, gid uint32
		rdev     uint64
	}{
		{".", unix.S_IFDIR | 0o711, 3, 4, 0}, {"tmp", unix.S_IFDIR | 0o1777, 0, 0, 0}, {"sgid", unix.S_IFDIR | 0o2750, 7, 8, 0},
		{"suid", unix.S_IFREG | 0o4755, 100000, 200000, 0}, {"deep", unix.S_IFDIR | 0o755, 0, 0, 0},
		{"abs", unix.S_IFLNK | 0o777, 5, 6, 0}, {"null", unix.S_IFCHR | 0o666, 0, 0, unix.Mkdev(1, 3)},
		{"disk", unix.S_IFBLK | 0o660, 0, 0, unix.Mkdev(8, 300)}, {"block00", unix.S_IFBLK | 0o600, 0, 0, 0}, {"pipe", unix.S_IFIFO | 0o622, 0, 0, 0},
		{"hard", unix.S_IFREG | 0o644, 0, 0, 0}, {"hardabs", unix.S_IFREG | 0o4755, 100000, 200000, 0}, {"hardsym", unix.S_IFLNK | 0o777, 5, 6, 0},
	}
	for _, tt := range tests {
		st := p.stat(t, tt.name)
		if st.Mode != tt.mode || st.Uid != tt.uid || st.Gid != tt.gid || (tt.rdev != 0 && st.Rdev != tt.rdev) {
			t.Errorf("%s: mode %o owner %d:%d device %x", tt.name, st.Mode, st.Uid, st.Gid, st.Rdev)
		}
		if at := time.Unix(st.Mtim.Unix()); tt.name != "deep" && !at.Equal(sometime) {
			t.Errorf("%s: time %v", tt.name, at)
		}
	}
	for _, tt := range []struct{ name, attr, want string }{
		{"suid", "security.capability", capability}, {"deep/er/file", "user.note", "hi"}, {"noted", "user.note", "dir"},
		{"labelled", "security.selinux", ""}, {"mac", "com.apple.provenance", ""},
	} {
		if got := p.xattr(tt.name, tt.attr); got != tt.want {
			t.Errorf("%s: %s is %q", tt.name, tt.attr, got)
		}
	}
	if p.stat(t, "hard").Ino != p.stat(t, "deep/er/file").Ino {
		t.Error("a hard link is a file of its own")
	}
	if p.read(t, "hard") != "hello" {
		t.Error("content")
	}
}

func TestWhiteouts(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	must(t, p.apply(t, archive(t,
		dir("a"), file("a/.wh.gone", ""),
		dir("opq"), file("opq/mine", "m"), file("opq/.wh..wh..opq", ""),
		file("fresh/.wh.deep", ""),              // parents are made
		file("kept", "k"), file(".wh.kept", ""), // a mark concerns lower layers only
		dir("both"), file("both/x", "x"), file(".wh.both", ""),
		file(".wh.first", ""), dir("first"), file("first/y", "y"),
		file(".wh.ff", ""), file("ff", "f"),
		file(".wh..wh.aufs", ""), file(".wh..wh.plnk/1.2", ""),
	)))
	for _, name := range []string{"a/gone", "fresh/deep"} {
		if st := p.stat(t, name); !isWhiteout(&st) || st.Mode&0o777 != 0 {
			t.Errorf("%s is no whiteout: mode %o", name, st.Mode)
		}
	}
	for name, opaque := range map[string]string{"opq": "y", "both": "y", "first": "y", "a": "", "fresh": "", ".": ""} {
		if got := p.xattr(name, XattrOpaque); got != opaque {
			t.Errorf("%s: opaque is %q", name, got)
		}
	}
	if p.read(t, "kept")+p.read(t, "opq/mine")+p.read(t, "both/x")+p.read(t, "first/y")+p.read(t, "ff") != "kmxyf" {
		t.Error("content of the layer itself was deleted")
	}
	names, err := filepath.Glob(filepath.Join(p.layer, "*.wh.*"))
	if err != nil || len(names) > 0 {
		t.Errorf("marks were unpacked: %v %v", names, err)
	}
	p = newPlace(t)
	must(t, p.apply(t, archive(t, file(".wh..wh..opq", ""))))
	if p.xattr(".", XattrOpaque) != "y" {
		t.Error("an opaque root is not marked")
	}
}

func TestRefused(t *testing.T) {
	needRoot(t)
	long := strings.Repeat("x", 256)
	tests := []struct {
		name    string
		entries []entry
	}{
		{"climbs", []entry{file("../x", "")}},
		{"climbs after a while", []entry{file("a/../../x", "")}},
		{"climbs from the root", []entry{file("/../x", "")}},
		{"link target climbs", []entry{link("x", "../outside")}},
		{"link to nothing", []entry{link("x", "absent")}},
		{"link to a directory", []entry{dir("d"), link("x", "d")}},
		{"link to itself", []entry{file("x", ""), link("x", "x")}},
		{"link to a whiteout", []entry{file(".wh.w", ""), link("x", "w")}},
		{"link out through a symlink", []entry{symlink("up", ".."), link("x", "up/outside")}},
		{"link out through an absolute symlink", []entry{symlink("up", "/etc"), link("x", "up/hostname")}},
		{"link over the directory of its target", []entry{file("d/f", ""), link("d", "d/f")}},
		{"file below a file", []entry{file("f", ""), file("f/x", "")}},
		{"file below a dangling symlink", []entry{symlink("s", "/nowhere"), file("s/x", "")}},
		{"file below a symlink loop", []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}},
		{"overlay's own device", []entry{{tar.Header{Typeflag: tar.TypeChar, Name: "c"}, ""}}},
		{"opaque attribute", []entry{withXattr(dir("d"), XattrOpaque, "y")}},
		{"redirect attribute", []entry{withXattr(dir("d"), "trusted.overlay.redirect", "/etc")}},
		{"user overlay attribute", []entry{withXattr(dir("d"), "user.overlay.opaque", "y")}},
		{"bad capability", []entry{withXattr(file("f", ""), "security.capability", "x")}},
		{"attribute too large", []entry{withXattr(file("f", ""), "user.x", strings.Repeat("x", maxXattr+1))}},
		{"user -1", []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1}, ""}}},
		{"user too large", []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1 << 33}, ""}}},
		{"group too large", []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "f", Gid: 1 << 32}, ""}}},
		{"name too long", []entry{file(long, "")}},
		{"path too deep", []entry{file(strings.Repeat("d/", 300)+"f", "")}},
		{"root is a file", []entry{file(".", "")}},
		{"root is a symlink", []entry{symlink(".", "/etc")}},
		{"deletes nothing", []entry{file(".wh.", "")}},
		{"deletes the parent", []entry{file("d/.wh...", "")}},
		{"below a deleted name", []entry{file(".wh.d/x", "")}},
		{"unknown type", []entry{{tar.Header{Typeflag: 'Q', Name: "q"}, ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := newPlace(t).apply(t, archive(t, tt.entries...))
			if _, ok := errors.AsType[*FormatError](err); !ok {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// Symlinks that lead outside are taken inside, as in a chroot.
func TestSymlinksStayInside(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	must(t, p.apply(t, archive(t,
		symlink("up", "../../.."), dir("etc"), symlink("abs", "/etc"), symlink("etc/back", "../.."),
		file("up/one", "1"), file("abs/two", "2"), file("etc/back/three", "3"), file("abs/.wh.gone", ""),
		symlink("over", "../outside"), file("over", "replaced"),
		symlink("dirlink", "/etc"), dir("dirlink"), file("dirlink/four", "4"),
		link("same", "up/one"), link("up/one", "one"),
	)))
	if p.read(t, "one")+p.read(t, "etc/two")+p.read(t, "three")+p.read(t, "over")+p.read(t, "dirlink/four") != "123replaced4" {
		t.Error("content")
	}
	if st := p.stat(t, "etc/gone"); !isWhiteout(&st) {
		t.Error("the whiteout is elsewhere")
	}
	if _, err := os.Lstat(filepath.Join(p.layer, "etc/four")); err == nil {
		t.Error("a directory over a symlink was taken for its target")
	}
}

func TestDuplicates(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	later := dir("d")
	later.Mode = 0o700
	must(t, p.apply(t, archive(t,
		file("f", "old"), file("f", "new"),
		dir("d"), file("d/x", "x"), later,
		dir("tree"), file("tree/a/b/c", ""), file("tree", "now a file"),
		file("was", "file"), dir("was"), file("was/in", "in"),
		entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "git"}}, ""},
	)))
	if p.read(t, "f")+p.read(t, "d/x")+p.read(t, "tree")+p.read(t, "was/in") != "newxnow a filein" {
		t.Error("content")
	}
	if p.stat(t, "d").Mode&0o777 != 0o700 {
		t.Error("the later directory entry does not count")
	}
}

func TestLimits(t *testing.T) {
	needRoot(t)
	three := archive(t, file("a", "12345"), file("b", "12345"), file("c", "12345"))
	for name, tt := range map[string]struct {
		l  Limits
		ok bool
	}{
		"enough": {Limits{Entries: 3, Bytes: 15, Depth: 1}, true}, "entries": {Limits{Entries: 2}, false}, "bytes": {Limits{Bytes: 14}, false},
	} {
		_, err := Apply(t.Context(), bytes.NewReader(three), newPlace(t).layer, tt.l)
		if _, refused := errors.AsType[*FormatError](err); refused == tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	res, err := Apply(t.Context(), bytes.NewReader(three), newPlace(t).layer, Limits{})
	if err != nil || res.Entries != 3 || res.Bytes != 15 || !slices.Equal(res.Implied, []string{"."}) {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestWholeStreamIsRead(t *testing.T) {
	needRoot(t)
	raw := archive(t, file("a", "1"))
	src := bytes.NewReader(append(bytes.Clone(raw), bytes.Repeat([]byte("garbage "), 100_000)...))
	if _, err := Apply(t.Context(), src, newPlace(t).layer, Limits{}); err != nil || src.Len() != 0 {
		t.Errorf("%d bytes were left, %v", src.Len(), err)
	}
	if _, err := Apply(t.Context(), bytes.NewReader(nil), newPlace(t).layer, Limits{}); err != nil {
		t.Errorf("an empty layer: %v", err)
	}
	broken := errors.New("the stream broke")
	for _, n := range []int{0, 100, 512, 600, len(raw)} {
		src := io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(broken))
		_, err := Apply(t.Context(), src, newPlace(t).layer, Limits{})
		if _, blamed := errors.AsType[*FormatError](err); !errors.Is(err, broken) || blamed {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{100, 513} {
		if _, err := Apply(t.Context(), bytes.NewReader(raw[:n]), newPlace(t).layer, Limits{}); err == nil {
			t.Errorf("cut after %d bytes", n)
		}
	}
}

func TestApplyPreconditions(t *testing.T) {
	p := newPlace(t)
	must(t, os.WriteFile(filepath.Join(p.layer, "x"), nil, 0o600))
	if _, err := Apply(t.Context(), bytes.NewReader(nil), p.layer, Limits{}); err == nil {
		t.Error("unpacked into a directory that is not empty")
	}
	must(t, os.Symlink("layer", filepath.Join(p.outer, "alias")))
	if _, err := Apply(t.Context(), bytes.NewReader(nil), filepath.Join(p.outer, "alias"), Limits{}); err == nil {
		t.Error("unpacked through a symlink")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Apply(ctx, bytes.NewReader(archive(t, file("a", ""))), newPlace(t).layer, Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled unpack: %v", err)
	}
}

// Where trusted attributes are not to be had, an opaque directory is an error.
func TestOpaqueNeedsTheAttribute(t *testing.T) {
	needRoot(t)
	// procfs knows no attributes; its directories stand for such a file system.
	fd, err := unix.Open("/proc/self", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer func() { _ = unix.Close(fd) }()
	if err := (&unpacker{opaqueAttr: XattrOpaque}).setOpaque(fd); err == nil || !strings.Contains(err.Error(), "come back") {
		t.Fatalf("got %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	needRoot(f)
	f.Add(archive(f, dir("d"), file("d/f", "x"), symlink("s", "../../.."), file("s/x", "y"), link("l", "d/f"), file("d/.wh.z", "")))
	f.Add(archive(f, symlink("a", "/"), symlink("a/b", "/../.."), file("a/b/../c", "x"), file(".wh..wh..opq", "")))
	f.Add(archive(f, withXattr(file("f", ""), "user.x", "y"), file("../outside", "z")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := newPlace(t)
		before := p.outside(t)
		_, _ = Apply(t.Context(), bytes.NewReader(raw), p.layer, Limits{Bytes: 1 << 20, Entries: 1000})
		if after := p.outside(t); after != before {
			t.Fatalf("the archive reached outside:\n%s\nwas\n%s", after, before)
		}
	})
}
