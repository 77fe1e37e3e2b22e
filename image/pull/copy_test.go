package pull_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// copier copies with the broker's keys, or without any.
func (w *world) copier(keys bool) *pull.Copier {
	w.t.Helper()
	config := w.config()
	config.Store = nil
	if !keys {
		config.Unwrapper = nil
	}
	c, err := pull.NewCopier(config)
	imagetest.Must(w.t, err)
	return c
}

// copy copies to a layout and returns the image there.
func (w *world) copy(c *pull.Copier, ref, dir string) (*pull.Copied, *registry.Resolved) {
	w.t.Helper()
	done, err := c.Copy(w.t.Context(), ref, "v1", layoutAt(dir))
	if err != nil {
		w.t.Fatalf("%v: %v", err, cause(err))
	}
	l, err := registry.OpenLayout(dir)
	imagetest.Must(w.t, err)
	r, err := registry.Resolve(w.t.Context(), l, "v1", registry.Native())
	imagetest.Must(w.t, err)
	for _, d := range append(r.Image.Layers, r.Image.Config) {
		_, err := registry.ReadBlob(w.t.Context(), l, d, 1<<20)
		imagetest.Must(w.t, err)
	}
	return done, r
}

func layoutAt(dir string) func() (pull.Target, error) {
	return func() (pull.Target, error) { return registry.CreateLayout(dir) }
}

// blobs lists the blobs of a layout, unfinished ones too.
func blobs(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	imagetest.Must(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestCopyDecrypts(t *testing.T) {
	w := newWorld(t)
	plain := layers(t)
	plain[0].MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
	ref, dir := w.ship("app:v1", plain...), filepath.Join(t.TempDir(), "out")
	done, r := w.copy(w.copier(true), ref, dir)
	if done.Reference != ref || done.Written == done.Digest || done.Written != r.Manifest.Digest.String() || done.Encrypted != 0 || !done.Verdict.Accepted || done.Config.Cmd[0] != "/bin/true" {
		t.Errorf("%+v", done)
	}
	for i, l := range r.Image.Layers {
		if l.MediaType != plain[i].MediaType || l.Digest != digest.FromBytes(plain[i].Blob) || len(l.Annotations) != 0 {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
	// The layout is one that others read too.
	if l, err := registry.OpenLayout(dir); err != nil || l == nil {
		t.Error(err)
	}
}

func TestCopyAsItIs(t *testing.T) {
	w := newWorld(t)
	ref, dir := w.ship("app:v1", layers(t)...), filepath.Join(t.TempDir(), "out")
	done, r := w.copy(w.copier(false), ref, dir)
	if done.Written != done.Digest || r.Manifest.Digest.String() != done.Digest || done.Encrypted != 3 || w.unwraps != 0 {
		t.Errorf("%+v, %d keys asked for", done, w.unwraps)
	}
	for _, l := range r.Image.Layers {
		if !strings.HasSuffix(l.MediaType, "+encrypted") {
			t.Errorf("%+v", l)
		}
	}
}

// What is there already is verified and not fetched; what is there and damaged
// is fetched.
func TestCopyGoesOn(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	for _, keys := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "out")
		// The last layer breaks off: nothing names what came before.
		repo, r := imagetest.Repository(t, w.Config(), ref)
		m, err := repo.Manifest(t.Context(), "v1")
		imagetest.Must(t, err)
		doc, err := m.Image()
		imagetest.Must(t, err)
		path := func(i int) string { return "/v2/" + r.Path + "/blobs/" + doc.Layers[i].Digest.String() }
		w.Replace(path(2), func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "away", http.StatusNotFound) })
		c := w.serial(keys)
		_, err = c.Copy(t.Context(), ref, "v1", layoutAt(dir))
		if fault.CodeOf(err) != fault.ImageUnavailable {
			t.Fatalf("%v: %v", err, cause(err))
		}
		l, err := registry.OpenLayout(dir)
		imagetest.Must(t, err)
		if _, err := l.Manifest(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("an image that is not whole has a name: %v", err)
		}
		w.Replace(path(2), nil)
		w.Forget()
		_, got := w.copy(c, ref, dir)
		for i := range 2 {
			if n := w.Requests("GET", path(i)); n != 0 {
				t.Errorf("keys %v: layer %d was fetched again, %d times", keys, i, n)
			}
		}
		blob := filepath.Join(dir, "blobs", "sha256", got.Image.Layers[1].Digest.Encoded())
		imagetest.Must(t, os.WriteFile(blob, []byte("damaged"), 0o600))
		w.Forget()
		w.copy(c, ref, dir)
		if w.Requests("GET", path(1)) != 1 || w.Requests("GET", path(0)) != 0 {
			t.Errorf("keys %v: after the damage %d and %d requests", keys, w.Requests("GET", path(1)), w.Requests("GET", path(0)))
		}
	}
}

// serial is a copier of one layer at a time.
func (w *world) serial(keys bool) *pull.Copier {
	w.t.Helper()
	config := w.config()
	config.Store, config.Parallel = nil, 1
	if !keys {
		config.Unwrapper = nil
	}
	c, err := pull.NewCopier(config)
	imagetest.Must(w.t, err)
	return c
}

// Nothing becomes visible that does not hold, and nothing at all of an image
// that the policy refuses.
func TestCopyRefuses(t *testing.T) {
	w := newWorld(t)
	c := w.serial(true)
	dir := filepath.Join(t.TempDir(), "out")
	imagetest.Push(t, w.Server, w.ref("unsigned:v1"), nil, layers(t)...)
	_, err := c.Copy(t.Context(), w.ref("unsigned:v1"), "v1", layoutAt(dir))
	if fault.CodeOf(err) != fault.ImageUnsigned {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a layout was made of an image that is refused: %v", err)
	}

	wrong := layers(t)
	wrong[1].DiffID = digest.FromString("something else")
	for _, ref := range []string{w.ship("wrong:v1", wrong[1]), w.clear("wrongplain:v1", wrong[1])} {
		_, err = c.Copy(t.Context(), ref, "v1", layoutAt(dir))
		w.layerError(err, 0, pull.WhatDiffID)
		if fault.CodeOf(err) != fault.ImageCorrupt {
			t.Errorf("%v", err)
		}
	}
	garbage := imagetest.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Blob: []byte("no gzip at all"), DiffID: wrong[0].DiffID}
	_, err = c.Copy(t.Context(), w.clear("garbage:v1", garbage), "v1", layoutAt(dir))
	w.layerError(err, 0, pull.WhatArchive)
	w.unwrapErr = errors.New("the broker refuses")
	_, err = c.Copy(t.Context(), w.ship("kept:v1", layers(t)...), "v1", layoutAt(dir))
	w.layerError(err, 0, pull.WhatKey)
	if got := blobs(t, dir); len(got) != 3 { // the configs; the two images with a wrong layer have one
		t.Errorf("the layout has %d blobs: %q", len(got), got)
	}

	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := c.Copy(ended, w.ref("kept:v1"), "v1", layoutAt(dir)); fault.CodeOf(err) != fault.ImageUnavailable {
		t.Errorf("after the end: %v", err)
	}
}

// A layer that unpacking would refuse for its length is not copied either, in the
// clear or decrypted on the way.
func TestCopyRefusesLongArchives(t *testing.T) {
	w := newWorld(t)
	long := imagetest.GzipLayer(t, imagetest.File("zeros", strings.Repeat("\x00", 1<<20)))
	config := w.config()
	config.Store = nil
	for limit, fits := range map[int64]bool{2 << 20: true, 1 << 20: false} {
		config.Limits = unpack.Limits{Archive: limit}
		c, err := pull.NewCopier(config)
		imagetest.Must(t, err)
		for _, ref := range []string{w.clear("long:clear", long), w.ship("long:encrypted", long)} {
			dir := filepath.Join(t.TempDir(), "out")
			_, err := c.Copy(t.Context(), ref, "v1", layoutAt(dir))
			if fits {
				imagetest.Must(t, err)
				continue
			}
			if le := w.layerError(err, 0, pull.WhatArchive); fault.CodeOf(err) != fault.ImageMalformed || !strings.Contains(le.Error(), "longer than") {
				t.Errorf("%v: %v", err, le)
			}
			if got := blobs(t, dir); len(got) != 1 { // the config
				t.Errorf("the layout has %q", got)
			}
		}
	}
}

// clear signs an image without encrypting it.
func (w *world) clear(name string, l ...imagetest.Layer) string {
	w.t.Helper()
	imagetest.Push(w.t, w.Server, w.ref(name), nil, l...)
	w.sign(w.ref(name))
	return w.ref(name)
}

// Layers that came before another one failed are kept if that is wanted.
func TestKeptForTheNextAttempt(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	repo, r := imagetest.Repository(t, w.Config(), ref)
	m, err := repo.Manifest(t.Context(), "v1")
	imagetest.Must(t, err)
	doc, err := m.Image()
	imagetest.Must(t, err)
	last := 0 // the largest layer is fetched first, and the smallest last
	for i, l := range doc.Layers {
		if l.Size < doc.Layers[last].Size {
			last = i
		}
	}
	path := "/v2/" + r.Path + "/blobs/" + doc.Layers[last].Digest.String()
	w.Replace(path, func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "away", http.StatusNotFound) })
	config := w.config()
	config.Keep, config.Parallel = true, 1
	p, err := pull.New(config)
	imagetest.Must(t, err)
	if _, err := p.Pull(t.Context(), ref); fault.CodeOf(err) != fault.ImageUnavailable {
		t.Fatalf("%v", err)
	}
	if n := len(w.store.Layers()); n != 2 {
		t.Errorf("%d layers were kept", n)
	}
	w.Replace(path, nil)
	w.Forget()
	img, err := p.Pull(t.Context(), ref)
	imagetest.Must(t, err)
	t.Cleanup(func() { _ = img.Release() })
	for i, l := range doc.Layers {
		if n := w.Requests("GET", l.Digest.String()); (n == 0) != (i != last) {
			t.Errorf("layer %d was fetched %d times", i, n)
		}
	}
}
