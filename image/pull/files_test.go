package pull

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// shelf is a registry of layers.
type shelf struct {
	registry.Source
	blobs map[digest.Digest][]byte
	asked int
}

func (s *shelf) Blob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s.asked++
	b, ok := s.blobs[d.Digest]
	if !ok {
		return nil, errors.New("no such blob")
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// stack is an image of layers, the lowest first.
func stack(s *shelf, mediaType string, layers ...[]byte) *ocispec.Manifest {
	s.blobs = map[digest.Digest][]byte{}
	m := &ocispec.Manifest{}
	for _, b := range layers {
		d := digest.FromBytes(b)
		s.blobs[d] = b
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))})
	}
	return m
}

// What the uppermost layer says counts, deletions too.
func TestReadFiles(t *testing.T) {
	base := []imagetest.Entry{imagetest.Dir("etc"), imagetest.File("etc/passwd", "base"), imagetest.File("./etc/group", "groups")}
	hard := imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "etc/passwd", Linkname: "etc/group"}}
	link := imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "etc", Linkname: "usr/etc"}}
	for name, c := range map[string]struct {
		top  []imagetest.Entry
		want string // of etc/passwd; "-" for none, "!" for an error
	}{
		"as it is":                  {nil, "base"},
		"replaced":                  {[]imagetest.Entry{imagetest.File("etc/passwd", "new")}, "new"},
		"another way to write it":   {[]imagetest.Entry{imagetest.File("/x/../etc//passwd", "new")}, "new"},
		"deleted":                   {[]imagetest.Entry{imagetest.File("etc/.wh.passwd", "")}, "-"},
		"its directory deleted":     {[]imagetest.Entry{imagetest.File(".wh.etc", "")}, "-"},
		"its directory anew":        {[]imagetest.Entry{imagetest.File("etc/.wh..wh..opq", "")}, "-"},
		"everything anew":           {[]imagetest.Entry{imagetest.File(".wh..wh..opq", "")}, "-"},
		"deleted and written":       {[]imagetest.Entry{imagetest.File("etc/.wh.passwd", ""), imagetest.File("etc/passwd", "new")}, "new"},
		"written, the rest deleted": {[]imagetest.Entry{imagetest.File("etc/passwd", "new"), imagetest.File("etc/.wh..wh..opq", "")}, "new"},
		"another one deleted":       {[]imagetest.Entry{imagetest.File("etc/.wh.passwd2", ""), imagetest.File(".wh.et", "")}, "base"},
		"a link":                    {[]imagetest.Entry{hard}, "!"},
		"a link above":              {[]imagetest.Entry{link}, "!"},
		"a directory":               {[]imagetest.Entry{imagetest.Dir("etc/passwd")}, "!"},
		"a large one":               {[]imagetest.Entry{imagetest.File("etc/passwd", strings.Repeat("x", maxFile+1))}, "!"},
	} {
		for mediaType, pack := range map[string]func([]byte) []byte{
			ocispec.MediaTypeImageLayer:     func(b []byte) []byte { return b },
			ocispec.MediaTypeImageLayerGzip: func(b []byte) []byte { return imagetest.Gzip(t, b) },
			ocispec.MediaTypeImageLayerZstd: func(b []byte) []byte { return imagetest.Zstd(t, b) },
		} {
			s := &shelf{}
			image := stack(s, mediaType, pack(imagetest.Tar(t, base...)), pack(imagetest.Tar(t, c.top...)))
			files, err := ReadFiles(t.Context(), s, image, "etc/passwd")
			got, there := files["etc/passwd"]
			switch {
			case c.want == "!":
				if err == nil {
					t.Errorf("%s: %q", name, got)
				}
			case err != nil || there != (c.want != "-") || there && string(got) != c.want:
				t.Errorf("%s, %s: %q, %v, %v", name, mediaType, got, there, err)
			}
		}
	}
}

// No more is fetched than is needed, and what cannot be read is an error.
func TestReadFilesOfFewLayers(t *testing.T) {
	s := &shelf{}
	top := imagetest.Tar(t, imagetest.File("a", "1"), imagetest.File("b", "2"))
	image := stack(s, ocispec.MediaTypeImageLayer, imagetest.Tar(t, imagetest.File("a", "0")), top)
	files, err := ReadFiles(t.Context(), s, image, "a", "b")
	if err != nil || s.asked != 1 || string(files["a"]) != "1" || string(files["b"]) != "2" {
		t.Errorf("%v, %v, %d blobs", files, err, s.asked)
	}
	if files, err := ReadFiles(t.Context(), s, image, "a", "c"); err != nil || s.asked != 3 || len(files) != 1 {
		t.Errorf("%v, %v, %d blobs", files, err, s.asked)
	}
	for name, c := range map[string]struct {
		mediaType string
		layer     []byte
	}{
		"encrypted":  {ocispec.MediaTypeImageLayerGzip + "+encrypted", top},
		"of no kind": {"application/x", top},
		"no gzip":    {ocispec.MediaTypeImageLayerGzip, top},
		"no tar":     {ocispec.MediaTypeImageLayer, bytes.Repeat([]byte("x"), 1024)},
		"truncated":  {ocispec.MediaTypeImageLayer, top[:300]},
	} {
		if files, err := ReadFiles(t.Context(), s, stack(s, c.mediaType, c.layer), "c"); err == nil {
			t.Errorf("%s: %v", name, files)
		}
	}
}

// An archive that would be too long to unpack is not searched to its end, however
// small it is in its compressed form.
func TestReadFilesOfTooLongAnArchive(t *testing.T) {
	raw := imagetest.Tar(t, imagetest.File("big", strings.Repeat("x", 1<<20)), imagetest.File("f", "found"))
	for c, blob := range map[compression][]byte{plain: raw, gzipped: imagetest.Gzip(t, raw), zstandard: imagetest.Zstd(t, raw)} {
		for limit, found := range map[int64]bool{0: true, 2 << 20: true, 1 << 20: false, 512: false} {
			s := newSearch([]string{"f"})
			s.limits.Archive = limit
			err := s.archive(t.Context(), &countingReader{r: bytes.NewReader(blob)}, c)
			_, format := errors.AsType[*unpack.FormatError](err)
			if found && (err != nil || string(s.found["f"]) != "found") || !found && (!format || len(s.found) > 0) {
				t.Errorf("compression %d, limit %d: %v, %v", c, limit, s.found, err)
			}
		}
	}
}

func FuzzReadFiles(f *testing.F) {
	f.Add(imagetest.Tar(f, imagetest.Dir("etc"), imagetest.File("etc/passwd", "x"), imagetest.File("etc/.wh..wh..opq", "")))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{255}, 1024))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := newSearch([]string{"etc/passwd"})
		if s.archive(t.Context(), &countingReader{r: bytes.NewReader(raw)}, plain) != nil {
			return
		}
		for name, b := range s.found {
			if name != "etc/passwd" || len(b) > maxFile || !s.settled[name] {
				t.Fatalf("%q has %d bytes", name, len(b))
			}
		}
	})
}
