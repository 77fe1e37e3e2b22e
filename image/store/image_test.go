package store

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

func needVerity(t *testing.T) {
	t.Helper()
	needMounts(t)
	if err := dm.Available(); err != nil {
		if os.Getenv("VOUCHSAFE_HAS_VERITY") != "" { // make test-kernel
			t.Fatal(err)
		}
		t.Skipf("make test-kernel runs this; layers cannot be images here: %v", err)
	}
}

// Without the means to check reads, the option is refused, not forgotten.
func TestImagesNeedDeviceMapper(t *testing.T) {
	s, err := Open(t.TempDir(), AsImages())
	if err == nil {
		must(t, s.Close())
	}
	if (dm.Available() == nil) != (err == nil) {
		t.Fatalf("device-mapper: %v; the store: %v", dm.Available(), err)
	}
}

// big commits a layer with content that takes blocks of its own.
func big(t *testing.T, s *Store, name string) *Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	body := bytes.Repeat([]byte(name+" is the content "), 100_000)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: int64(len(body)), Format: tar.FormatPAX}))
	_, err := w.Write(body)
	must(t, err)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "dir/small", Mode: 0o4711, Uid: 7, Format: tar.FormatPAX}))
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: ".wh.gone", Format: tar.FormatPAX}))
	must(t, w.Close())
	st, err := s.Stage()
	must(t, err)
	_, err = st.Unpack(t.Context(), &buf, unpack.Limits{})
	must(t, err)
	l, err := st.Commit(key(name))
	must(t, err)
	return l
}

func TestLayersAsImages(t *testing.T) {
	needVerity(t)
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "rootfs")
	s, err := Open(dir, AsImages())
	must(t, err)
	low, high := big(t, s, "low"), big(t, s, "high")
	mountFor(t, s, []*Layer{low, high}, target)
	b, err := os.ReadFile(filepath.Join(target, "big"))
	must(t, err)
	if !bytes.HasPrefix(b, []byte("high is")) {
		t.Errorf("the file begins with %.20q", b)
	}
	if fi, err := os.Stat(filepath.Join(target, "dir/small")); err != nil || fi.Mode().Perm() != 0o711 || fi.Mode()&os.ModeSetuid == 0 {
		t.Errorf("%v, %v", fi, err)
	}
	if u := high.Usage(); u.Inodes != 5 /* two directories, image, boot, implied */ || u.Bytes < int64(len(b)) {
		t.Errorf("an image occupies %+v", u)
	}
	must(t, os.WriteFile(filepath.Join(target, "new"), nil, 0o644))

	// Another process takes over, and sees the same.
	must(t, s.Close())
	s, err = Open(dir, AsImages())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	if len(s.Recovered()) != 1 || acquire(t, s, key("low")) == nil {
		t.Fatal("the mount or its layers are lost")
	}
	spoil(t, s.path(layersDir, high.name, imageFile))
	if _, err := os.ReadFile(filepath.Join(target, "big")); !errors.Is(err, unix.EIO) {
		t.Errorf("a changed disk was read: %v", err)
	}
	must(t, s.Recovered()[0].Unmount())
	if n, err := s.GC(); n != 1 || err != nil || count(t, s, stagingDir) != 0 { // low is held
		t.Errorf("%d layers went, %v", n, err)
	}
	for _, l := range s.Layers() {
		s.loosen(l.Name)
	}
	if n, err := s.GC(); n != 1 || err != nil || onDisk(t, dir).Inodes != 4 || s.Usage() != (Usage{}) {
		t.Errorf("%d layers went, %v; %+v is left", n, err, onDisk(t, dir))
	}
}

// spoil changes a byte in the middle of a file as a host would, below all that
// the kernel remembers of it.
func spoil(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	fi, err := f.Stat()
	must(t, err)
	b := []byte{0}
	_, err = f.ReadAt(b, fi.Size()/2)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, fi.Size()/2)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
}
