package debimage

import (
	"archive/tar"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// The image must really have the awkward parts that it exists for.
func TestImageHasTheAwkwardParts(t *testing.T) {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: the image is assembled from Debian packages", tool)
		}
	}
	dir, err := Build(t.Context(), filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Build(t.Context(), dir); err != nil || again != dir {
		t.Fatalf("the cache is not used: %v", err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) < 4 {
		t.Errorf("%d layers", len(parts))
	}
	found := map[string]bool{}
	for _, l := range parts {
		inspect(t, tar.NewReader(uncompressed(t, l, found)), found)
	}
	for _, want := range []string{"zstd", "setuid", "hard link", "xattr", "whiteout", "opaque", "nginx", "entrypoint", "busybox"} {
		if !found[want] {
			t.Errorf("the image has no %s", want)
		}
	}
}

func uncompressed(t *testing.T, l v1.Layer, found map[string]bool) io.Reader {
	t.Helper()
	if mt, _ := l.MediaType(); mt != types.OCILayerZStd {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	found["zstd"] = true
	body, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	r, err := zstd.NewReader(body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func inspect(t *testing.T, r *tar.Reader, found map[string]bool) {
	t.Helper()
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(h.Name)
		for what, is := range map[string]bool{
			"setuid":     h.Mode&0o4000 != 0,
			"hard link":  h.Typeflag == tar.TypeLink,
			"xattr":      h.PAXRecords["SCHILY.xattr.security.capability"] != "",
			"opaque":     base == ".wh..wh..opq",
			"whiteout":   strings.HasPrefix(base, ".wh.") && base != ".wh..wh..opq",
			"nginx":      h.Name == "usr/sbin/nginx",
			"entrypoint": h.Name == "entrypoint",
			"busybox":    base == "busybox",
		} {
			found[what] = found[what] || is
		}
	}
}
