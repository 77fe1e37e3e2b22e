package pull_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

const (
	layerTar  = "application/vnd.oci.image.layer.v1.tar"
	layerGzip = layerTar + "+gzip"
	layerZstd = layerTar + "+zstd"
)

// hostile are archives that no image may have, as they would come from a
// registry: in a layer whose digests are right.
func hostile(t *testing.T) map[string]imagetest.Layer {
	entry := func(h tar.Header) imagetest.Entry { return imagetest.Entry{Header: h} }
	gz := func(entries ...imagetest.Entry) imagetest.Layer { return imagetest.GzipLayer(t, entries...) }
	good := imagetest.Tar(t, imagetest.File("f", "content"))
	as := func(mediaType string, blob []byte) imagetest.Layer {
		return imagetest.Layer{MediaType: mediaType, Blob: blob, DiffID: digest.FromBytes(good)}
	}
	var many []imagetest.Entry
	for i := range 1200 {
		many = append(many, imagetest.File(fmt.Sprint(i), ""))
	}
	link := func(kind byte, name, to string) imagetest.Entry {
		return entry(tar.Header{Typeflag: kind, Name: name, Linkname: to})
	}
	return map[string]imagetest.Layer{
		"more entries than allowed":     gz(many...),
		"more content than allowed":     gz(imagetest.File("big", strings.Repeat("x", 3<<20))),
		"a name of a megabyte":          gz(imagetest.File(strings.Repeat("n", 1_000_000), "")),
		"symlinks in a circle":          gz(link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), imagetest.File("a/f", "")),
		"hard links in a circle":        gz(link(tar.TypeLink, "a", "b"), link(tar.TypeLink, "b", "a")),
		"a hard link to /proc":          gz(link(tar.TypeSymlink, "p", "/proc/self"), link(tar.TypeLink, "x", "p/exe")),
		"a file below /proc":            gz(link(tar.TypeSymlink, "p", "/proc/self/root/tmp"), imagetest.File("p/f", "")),
		"overlayfs's mark as a device":  gz(entry(tar.Header{Typeflag: tar.TypeChar, Name: "c"})),
		"overlayfs's attribute":         gz(entry(tar.Header{Typeflag: tar.TypeDir, Name: "d", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}})),
		"a bomb of zstandard":           zstdBomb(t),
		"gzip that says it is zstd":     as(layerZstd, imagetest.Gzip(t, good)),
		"zstd that says it is gzip":     as(layerGzip, imagetest.Zstd(t, good)),
		"gzip that says it is a tar":    as(layerTar, imagetest.Gzip(t, good)),
		"a tar that says it is gzip":    as(layerGzip, good),
		"a tar in gzip in gzip":         as(layerGzip, imagetest.Gzip(t, imagetest.Gzip(t, good))),
		"a manifest as a layer":         as(layerTar, bytes.Repeat([]byte(`{"schemaVersion":2}`), 100)),
		"gzip with a tail of something": as(layerGzip, append(imagetest.Gzip(t, good), "something else"...)),
		"gzip that is cut":              as(layerGzip, imagetest.Gzip(t, good)[:40]),
		"zstd with a window of 1 GiB":   as(layerZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00}),
	}
}

// zstdBomb is more than a GiB of nothing in some hundred KiB, a ratio that
// deflate could not reach. It does not even end.
func zstdBomb(t *testing.T) imagetest.Layer {
	var blob bytes.Buffer
	z, err := zstd.NewWriter(&blob, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	imagetest.Must(t, err)
	w := tar.NewWriter(z)
	imagetest.Must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "nothing", Size: 4 << 30, Format: tar.FormatPAX}))
	zeros := make([]byte, 1<<20)
	for range 1100 {
		_, err := w.Write(zeros)
		imagetest.Must(t, err)
	}
	imagetest.Must(t, z.Close())
	return imagetest.Layer{MediaType: layerZstd, Blob: blob.Bytes(), DiffID: digest.FromString("never reached")}
}

// Each is refused with a code and the layer's number, in the clear and
// encrypted, and nothing of it or of the layers beside it is seen or left.
func TestHostileLayers(t *testing.T) {
	w := newWorld(t)
	config := w.config()
	good := imagetest.GzipLayer(t, imagetest.File("good", "x"))
	for name, l := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			config.Limits = unpack.Limits{Entries: 1000, Bytes: 2 << 20}
			if strings.Contains(name, "bomb") {
				config.Limits.Bytes = 0 // what stops it is not how large a file may be
			}
			var err error
			w.puller, err = pull.New(config)
			imagetest.Must(t, err)
			refs := []string{w.ref("hostile:clear")}
			imagetest.Push(t, w.Server, refs[0], nil, good, l)
			w.sign(refs[0])
			if !strings.Contains(name, "bomb") { // once is slow enough
				refs = append(refs, w.ship("hostile:encrypted", good, l))
			}
			for _, ref := range refs {
				le := w.layerError(w.refused(ref, fault.ImageMalformed), 1, pull.WhatArchive)
				if want := "expand to more"; strings.Contains(name, "bomb") && !strings.Contains(le.Error(), want) {
					t.Errorf("refused for %v, not because they %s", le, want)
				}
			}
		})
	}
}
