package trees

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry is one of a layer's archive.
type entry struct {
	tar.Header
	body string
}

var at = time.Unix(1_600_000_000, 123_456_789)

func dir(name string, mode int64, id int) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: id, Gid: id, ModTime: at}, ""}
}

func file(name string, mode int64, id int, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: id, Gid: id, ModTime: at.Add(time.Hour)}, body}
}

func special(kind byte, name, link string, mode, major, minor int64) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: mode, Devmajor: major, Devminor: minor, Uid: 3, Gid: 4, ModTime: at}, ""}
}

// hard is a hard link, which an archive describes as it does its target.
func hard(name string, to entry) entry {
	link := to
	link.Typeflag, link.Name, link.Linkname, link.body = tar.TypeLink, name, to.Name, ""
	return link
}

func (e entry) with(attribute, value string) entry {
	records := map[string]string{"SCHILY.xattr." + attribute: value}
	for k, v := range e.PAXRecords {
		records[k] = v
	}
	e.PAXRecords = records
	return e
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Format, e.Size = tar.FormatPAX, int64(len(e.body))
		must(t, w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.body)
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// capNetRaw is security.capability for cap_net_raw+ep, version 2.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// everything is an image of four layers with all that layers can hold.
func everything(t testing.TB) v1.Image {
	t.Helper()
	many := strings.Repeat("many/", 30)
	passwd, su, upper := file("etc/passwd", 0o644, 0, "root:x:0:0\n"), file("bin-su", 0o4755, 0, "su"), file("replaced", 0o600, 2, "upper")
	pipe := special(tar.TypeFifo, "pipe", "", 0o622, 0, 0)
	return image(t,
		archive(t,
			dir("./", 0o751, 2), dir("etc", 0o755, 0), dir("tmp", 0o1777, 0), dir("home", 0o711, 0), dir("home/me", 0o2750, 1000),
			dir("lib", 0o755, 0), dir("var", 0o755, 0), dir("var/cache", 0o700, 33), dir("var/log", 0o775, 4),
			passwd, su, file("bin-wall", 0o2755, 5, "wall"),
			file("none", 0, 0, "nobody may read this"), file("empty", 0o600, 4_000_000_000, ""), file("home/me/.profile", 0o640, 1000, "x"),
			file("ping", 0o755, 0, "ping").with("security.capability", capNetRaw), file("noted", 0o644, 7, "n").with("user.note", "hello\x00there").with("user.more", ""),
			dir("noted.d", 0o755, 7).with("user.note", "dir"), file(strings.Repeat("n", 255), 0o644, 0, "long"), dir(many, 0o755, 0),
			file(many+"ünïcödé and spaces\tand -dashes\n", 0o644, 0, "odd"), file("old", 0o644, 0, "to be deleted"), file("replaced", 0o644, 0, "lower"),
			special(tar.TypeSymlink, "abs", "/etc/passwd", 0o777, 0, 0), special(tar.TypeSymlink, "up", "../../..", 0o777, 0, 0), special(tar.TypeSymlink, "dangling", "nowhere", 0o777, 0, 0),
			hard("same-passwd", passwd), hard("home/me/same-passwd", passwd), hard("same-suid", su),
			special(tar.TypeChar, "null", "", 0o666, 1, 3), special(tar.TypeBlock, "disk", "", 0o660, 8, 300), pipe, hard("same-pipe", pipe),
			file("var/cache/a", 0o600, 33, "a"), file("var/cache/b", 0o600, 33, "b"), file("var/log/1", 0o640, 4, "1"),
			dir("was-dir", 0o755, 0), file("was-dir/in", 0o644, 0, "x"), file("was-file", 0o644, 0, "x"), dir("opaque", 0o750, 9), file("opaque/below", 0o644, 0, "x"),
		),
		sparse(t),
		archive(t, // deletions, replacements
			dir("etc", 0o750, 11), file(".wh.old", 0, 0, ""), upper, file("home/me/.wh..profile", 0, 0, ""),
			file("var/cache/.wh.a", 0, 0, ""), file("was-dir", 0o644, 0, "now a file"), dir("was-file", 0o755, 0), file("was-file/in", 0o644, 0, "now a directory"),
			dir("opaque", 0o705, 10), file("opaque/.wh..wh..opq", 0, 0, ""), file("opaque/above", 0o644, 0, "y"), dir("fresh", 0o755, 0),
			hard("fresh/link", upper),
		),
		archive(t, // directories that only lower layers describe
			file("tmp/dropped", 0o644, 0, "x"), file("home/me/new", 0o644, 1000, "x"), file("var/log/2", 0o640, 4, "2"), file("unknown/dir/f", 0o644, 0, "x"),
			file("var/.wh.cache", 0, 0, ""),
		),
	)
}

// sparse is a layer that GNU tar wrote, with a file that has holes.
func sparse(t testing.TB) []byte {
	t.Helper()
	base := t.TempDir()
	f, err := os.Create(filepath.Join(base, "sparse"))
	must(t, err)
	for _, off := range []int64{4096, 1 << 20, 5<<20 + 17} {
		_, err = f.WriteAt([]byte("data"), off)
		must(t, err)
	}
	must(t, f.Truncate(8<<20+3))
	must(t, f.Close())
	must(t, os.Chtimes(f.Name(), at, at))
	out, err := exec.CommandContext(t.Context(), "tar", "-C", base, "-c", "--sparse", "--format=posix", "--sparse-version=1.0", "--owner=5", "--group=6", "sparse").Output()
	must(t, err)
	return out
}

func image(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, raw := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }, tarball.WithMediaType(types.OCILayer))
		must(t, err)
		img, err = mutate.AppendLayers(img, l)
		must(t, err)
	}
	return platform(t, img)
}

// gzipped is the image with gzip layers alone, which every program reads.
func gzipped(t testing.TB, from v1.Image) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	layers, err := from.Layers()
	must(t, err)
	for _, l := range layers {
		z, err := tarball.LayerFromOpener(l.Uncompressed, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
		must(t, err)
		img, err = mutate.AppendLayers(img, z)
		must(t, err)
	}
	return platform(t, img)
}
