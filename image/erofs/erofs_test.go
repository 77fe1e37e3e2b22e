package erofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/verity"
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

// sample is a layer directory with all that layers can hold, and with content of
// all lengths around a block.
func sample(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layer")
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(at("many"), 0o755))
	for i := range 400 { // several blocks of names
		must(t, os.WriteFile(at(fmt.Sprintf("many/%03d-%s", i, strings.Repeat("n", i%200))), []byte(fmt.Sprint(i)), 0o644))
	}
	for _, size := range []int{0, 1, 100, 3000, 3999, 4031, 4032, 4033, 4095, 4096, 4097, 8000, 8192, 100_000, 1 << 20} {
		must(t, os.WriteFile(at(fmt.Sprintf("size-%d", size)), bytes.Repeat([]byte("0123456789"), size/10+1)[:size], 0o640))
	}
	must(t, os.Mkdir(at("empty"), 0o700))
	must(t, os.MkdirAll(at("a/b/c/d"), 0o755))
	must(t, os.Symlink("/etc/passwd", at("link")))
	must(t, os.Symlink(strings.Repeat("x/", 2040)+"y", at("long-link")))
	must(t, os.Link(at("size-100"), at("a/b/same")))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))
	must(t, unix.Mknod(at("pipe"), unix.S_IFIFO|0o622, 0))
	must(t, unix.Mknod(at("deleted"), unix.S_IFCHR, 0))
	must(t, unix.Setxattr(at("a"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(at("size-1"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, unix.Setxattr(at("size-4096"), "user.long", bytes.Repeat([]byte("v"), 2000), 0))
	must(t, unix.Setxattr(at("size-8000"), "user.a", nil, 0))
	must(t, os.Lchown(at("link"), 5, 6))
	must(t, os.Lchown(at("size-100"), 100_000, 4_000_000_000))
	must(t, os.Chmod(at("size-100"), 0o4755|fs.ModeSetuid))
	for name, size := range map[string]int64{"sparse": 3<<20 + 5, "hole": 100 << 30, "hole-last": 1 << 20} {
		f, err := os.Create(at(name))
		must(t, err)
		if name != "hole" {
			_, err = f.WriteAt([]byte("data"), 300_000)
			must(t, err)
		}
		must(t, f.Truncate(size))
		must(t, f.Close())
	}
	odd := time.Unix(1_600_000_000, 123_456_789)
	must(t, os.Chtimes(at("a"), odd, odd))
	must(t, os.Chtimes(at("size-0"), time.Unix(-5, 7), time.Unix(-5, 7)))
	must(t, os.Chmod(dir, 0o711))
	return dir
}

// describe lists every inode with all that an image keeps.
func describe(t testing.TB, dir string) string {
	t.Helper()
	var all []string
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%q %o %d:%d %d.%09d links %d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			line += fmt.Sprintf(" size %d", st.Size)
			if st.Size < 1<<30 {
				b, err := os.ReadFile(path)
				must(t, err)
				line += fmt.Sprintf(" content %x", b)
			}
			if st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = name
				}
				line += " same as " + first[st.Ino]
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			must(t, err)
			line += " to " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		list := make([]byte, 4096)
		n, err := unix.Llistxattr(path, list)
		must(t, err)
		names := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
		sort.Strings(names)
		for _, a := range names {
			if a != "" {
				value := make([]byte, 4096)
				n, err := unix.Lgetxattr(path, a, value)
				must(t, err)
				line += fmt.Sprintf(" %s=%q", a, value[:n])
			}
		}
		all = append(all, line)
		return nil
	}))
	return strings.Join(all, "\n")
}

// write makes the image and, with it, its hash tree.
func write(t testing.TB, dir string) (path string, root verity.Root) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	must(t, err)
	b, err := verity.NewBuilder([]byte("salt"))
	must(t, err)
	blocks, err := Write(t.Context(), multi{f, b}, dir)
	must(t, err)
	must(t, f.Close())
	tree, err := os.Create(path + ".tree")
	must(t, err)
	root, err = b.Finish(tree)
	must(t, err)
	must(t, tree.Close())
	if fi, err := os.Stat(path); err != nil || fi.Size() != blocks*BlockSize || root.Blocks != blocks {
		t.Fatalf("%d blocks, of which the tree has %d, in %d bytes", blocks, root.Blocks, fi.Size())
	}
	return path, root
}

type multi struct {
	f *os.File
	b *verity.Builder
}

func (m multi) Write(p []byte) (int, error) {
	if _, err := m.b.Write(p); err != nil {
		return 0, err
	}
	return m.f.Write(p)
}

func mountImage(t testing.TB, image string) string {
	t.Helper()
	target := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "erofs", "-o", "loop,ro", image, target).CombinedOutput()
	if err != nil {
		t.Skipf("this kernel does not mount EROFS images: %v %s", err, out)
	}
	t.Cleanup(func() { must(t, exec.Command("umount", target).Run()) }) //nolint:noctx // after the test's own context
	return target
}

// The kernel shows the image as the directory is, inode by inode.
func TestKernelShowsTheSame(t *testing.T) {
	needRoot(t)
	dir := sample(t)
	image, _ := write(t, dir)
	if fi, err := os.Stat(image); err != nil || fi.Size() > 4<<20 {
		t.Errorf("the image has %d bytes (%v): holes were written", fi.Size(), err)
	}
	target := mountImage(t, image)
	got, want := strings.Split(describe(t, target), "\n"), strings.Split(describe(t, dir), "\n")
	if len(got) != len(want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("got  %.300s\nwant %.300s", got[i], want[i])
		}
	}
	hole, err := os.Open(filepath.Join(target, "hole"))
	must(t, err)
	defer func() { _ = hole.Close() }()
	b := make([]byte, 10)
	if _, err := hole.ReadAt(b, 99<<30); err != nil || !bytes.Equal(b, make([]byte, 10)) {
		t.Errorf("in the hole is %q, %v", b, err)
	}
}

func TestCheckedByErofsUtils(t *testing.T) {
	needRoot(t)
	for _, p := range []string{"fsck.erofs", "dump.erofs", "veritysetup"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s (Debian: erofs-utils, cryptsetup-bin) is not installed; make test installs it", p)
		}
	}
	dir := sample(t)
	must(t, os.Remove(filepath.Join(dir, "hole"))) // fsck reads it all
	image, root := write(t, dir)
	out, err := exec.CommandContext(t.Context(), "fsck.erofs", image).CombinedOutput()
	if err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "dump.erofs", "-s", image).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "sb_csum mtime chunked_file") {
		t.Errorf("dump.erofs: %v\n%s", err, out)
	}
	verify := func() error {
		return exec.CommandContext(t.Context(), "veritysetup", "verify", image, image+".tree", fmt.Sprintf("%x", root.Hash),
			"--no-superblock", fmt.Sprintf("--salt=%x", root.Salt), "--hash=sha256", fmt.Sprintf("--data-blocks=%d", root.Blocks)).Run()
	}
	must(t, verify())
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{0xff}, root.Blocks*BlockSize-1)
	must(t, err)
	must(t, f.Close())
	if verify() == nil {
		t.Error("an image that was changed in its last byte holds")
	}
}

// As a lower layer of overlayfs the image does what the directory does.
func TestLowerLayer(t *testing.T) {
	needRoot(t)
	low, high := filepath.Join(t.TempDir(), "low"), filepath.Join(t.TempDir(), "high")
	for _, d := range []string{low + "/opaque", low + "/merged", high + "/opaque", high + "/merged"} {
		must(t, os.MkdirAll(d, 0o755))
	}
	for _, f := range []string{low + "/gone", low + "/opaque/hidden", low + "/merged/low", high + "/opaque/seen", high + "/merged/high"} {
		must(t, os.WriteFile(f, nil, 0o644))
	}
	must(t, unix.Mknod(high+"/gone", unix.S_IFCHR, 0))
	must(t, unix.Setxattr(high+"/opaque", "trusted.overlay.opaque", []byte("y"), 0))
	lowImage, _ := write(t, low)
	highImage, _ := write(t, high)
	options := "lowerdir=" + mountImage(t, highImage) + ":" + mountImage(t, lowImage)
	target := t.TempDir()
	must(t, unix.Mount("overlay", target, "overlay", 0, options))
	var have []string
	must(t, filepath.WalkDir(target, func(path string, _ fs.DirEntry, err error) error {
		have = append(have, strings.TrimPrefix(path, target))
		return err
	}))
	must(t, unix.Unmount(target, 0))
	if got, want := strings.Join(have, " "), " /merged /merged/high /merged/low /opaque /opaque/seen"; got != want {
		t.Errorf("there is%s, want%s", got, want)
	}
}

func TestSameBytesAgain(t *testing.T) {
	needRoot(t)
	dir := sample(t)
	a, _ := write(t, dir)
	b, _ := write(t, dir)
	one, err := os.ReadFile(a)
	must(t, err)
	two, err := os.ReadFile(b)
	must(t, err)
	if !bytes.Equal(one, two) {
		t.Error("two images of one directory differ")
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	if _, err := Write(t.Context(), &bytes.Buffer{}, filepath.Join(dir, "f")); err == nil {
		t.Error("the image of a file")
	}
	if _, err := Write(t.Context(), &bytes.Buffer{}, filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the image of nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, &bytes.Buffer{}, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled image: %v", err)
	}
	if _, err := Write(t.Context(), full{}, dir); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("onto a full disk: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }
