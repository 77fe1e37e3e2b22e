package unpack

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Runs of zeros become holes, wherever they lie, and content stays the same.
func TestZerosBecomeHoles(t *testing.T) {
	needRoot(t)
	x, zero := bytes.Repeat([]byte("x"), holeBlock), make([]byte, holeBlock)
	for name, tt := range map[string]struct {
		body  []byte
		holes int // blocks of holeBlock
	}{
		"none":           {slices.Concat(x, x, x), 0},
		"all":            {slices.Concat(zero, zero, zero), 3},
		"first":          {slices.Concat(zero, x), 1},
		"middle":         {slices.Concat(x, zero, zero, x, zero, x), 3},
		"last":           {slices.Concat(x, x, x, zero), 1},
		"last, ragged":   {slices.Concat(x, zero, zero[:10]), 1},
		"not whole":      {slices.Concat(x, zero[:holeBlock-1], []byte{1}), 0},
		"a zero in each": {slices.Concat([]byte{0}, x, []byte{0}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			must(t, p.apply(t, archive(t, file("f", string(tt.body)))))
			if p.read(t, "f") != string(tt.body) {
				t.Error("the content is another")
			}
			st := p.stat(t, "f")
			if got, most := st.Blocks*512, int64(len(tt.body)-tt.holes*holeBlock)+4096; got > most {
				t.Errorf("%d bytes are on the disk, want at most %d", got, most)
			}
		})
	}
}

// GNU tar writes sparse files in four ways.
func TestSparseFormats(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	for _, at := range []int64{0, 3 << 20, 9<<20 + 5000} {
		_, err = f.WriteAt([]byte("data here"), at)
		must(t, err)
	}
	must(t, f.Truncate(20<<20+77))
	must(t, f.Close())
	want, err := os.ReadFile(f.Name())
	must(t, err)
	for _, args := range [][]string{
		{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=1.0"},
	} {
		cmd := exec.CommandContext(t.Context(), "tar", append(append([]string{"-C", dir, "-c", "--sparse"}, args...), "sparse")...)
		raw, err := cmd.Output()
		must(t, err)
		if len(raw) > 1<<20 {
			t.Fatalf("%v: the archive is not sparse", args)
		}
		p := newPlace(t)
		must(t, p.apply(t, raw))
		if p.read(t, "sparse") != string(want) {
			t.Errorf("%v: the content is another", args)
		}
		if st := p.stat(t, "sparse"); st.Blocks*512 > 1<<20 {
			t.Errorf("%v: %d bytes are on the disk", args, st.Blocks*512)
		}
	}
}

func TestTimes(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	at := func(e entry, mod, access time.Time) entry {
		e.ModTime, e.AccessTime = mod, access
		return e
	}
	long, before := time.Unix(4_102_444_800, 999_999_999), time.Unix(-1, 500_000_000)
	must(t, p.apply(t, archive(t,
		at(dir("d"), long, sometime), at(file("d/f", "x"), before, long), at(symlink("d/s", "f"), before, time.Time{}),
		at(dir("other"), sometime, time.Time{}), symlink("alias", "other"), at(dir("alias/."), long, time.Time{}), // replaces the link
		symlink("up", "d"), at(dir("up/in"), long, time.Time{}), at(dir("d/in"), before, time.Time{}), // one directory by two names
	)))
	for _, tt := range []struct {
		name        string
		mod, access time.Time
	}{{"d", long, sometime}, {"d/f", before, long}, {"d/s", before, before}, {"other", sometime, sometime}, {"alias", long, long}, {"d/in", before, before}} {
		st := p.stat(t, tt.name)
		if mod, access := time.Unix(st.Mtim.Unix()), time.Unix(st.Atim.Unix()); !mod.Equal(tt.mod) || tt.name == "d/f" && !access.Equal(tt.access) {
			t.Errorf("%s: modified %v, read %v", tt.name, mod, access)
		}
	}
}

// What the archive does not describe is said to the caller, and belongs to
// root whatever the directory above does with groups.
func TestImpliedDirectories(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	shared := dir("shared")
	shared.Mode, shared.Gid = 0o2775, 50
	owned := file("shared/mine", "")
	owned.Uid = 7
	raw := archive(t, shared, file("shared/new/f", ""), file("shared/g", ""), owned, file("a/b/c", ""), dir("a"), file("x/.wh.y", ""))
	res, err := Apply(t.Context(), bytes.NewReader(raw), p.layer, Limits{})
	must(t, err)
	if want := []string{".", "a/b", "shared/new", "x"}; !slices.Equal(res.Implied, want) {
		t.Errorf("implied %v, want %v", res.Implied, want)
	}
	for name, want := range map[string][3]uint32{
		"shared": {0o42775, 0, 50}, "shared/new": {0o40755, 0, 0}, "shared/new/f": {0o100644, 0, 0}, "shared/g": {0o100644, 0, 0}, "shared/mine": {0o100644, 7, 0},
	} {
		if st := p.stat(t, name); st.Mode != want[0] || st.Uid != want[1] || st.Gid != want[2] {
			t.Errorf("%s: mode %o owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
	}
}

// A file system without user attributes still holds the image; one without
// capabilities does not.
func TestFileSystemWithoutAttributes(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("no ramfs: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	apply := func(name string, e entry) error {
		at := filepath.Join(dir, name)
		must(t, os.Mkdir(at, 0o755))
		_, err := Apply(context.WithoutCancel(t.Context()), bytes.NewReader(archive(t, e)), at, Limits{})
		return err
	}
	must(t, apply("user", withXattr(file("f", ""), "user.x", "y")))
	if apply("acl", withXattr(file("f", ""), "system.posix_acl_access", "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff")) == nil {
		t.Error("an access list was left out silently")
	}
	if apply("opaque", file(".wh..wh..opq", "")) == nil {
		t.Error("an opaque mark was left out silently")
	}
}
