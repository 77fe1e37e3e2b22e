package pull_test

import (
	"archive/tar"
	"io"
	"net/http"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A layer passes through a few buffers; memory never holds it.
func TestLayersStream(t *testing.T) {
	w := newWorld(t)
	const size = 192 << 20
	write := func(out io.Writer) {
		tw := tar.NewWriter(out)
		_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: size})
		_, _ = io.CopyBuffer(struct{ io.Writer }{tw}, io.LimitReader(zeros{}, size), make([]byte, 64<<10))
		_ = tw.Close()
	}
	digester, length := digest.SHA256.Digester(), &counter{}
	write(io.MultiWriter(digester.Hash(), length))
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digester.Digest(), Size: length.n}

	ref := w.ref("big:v1")
	repo, r := imagetest.Repository(t, w.Config(), ref)
	config := imagetest.Config(t, []imagetest.Layer{{DiffID: layer.Digest}})
	imagetest.Manifest(t, repo, r.Tag, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: imagetest.Blob(t, repo, ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{layer},
	})
	w.sign(ref)
	w.Replace("/v2/"+r.Path+"/blobs/"+layer.Digest.String(), func(rw http.ResponseWriter, _ *http.Request) { write(rw) })

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.pull(ref)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > size/8 {
		t.Errorf("pulling %d bytes allocated %d", size, used)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
