package pull_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
)

// The host's registry serves other bytes than the signed manifest names.
func TestTamperedBlob(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	in, err := ship.Inspect(t.Context(), ref, ship.InspectOptions{Registry: w.Config()})
	imagetest.Must(t, err)
	for i, l := range in.Layers {
		path := "/v2/signed/app/blobs/" + l.Digest
		good := w.fetch(path)
		for name, bad := range map[string][]byte{"first bit": flip(good, 0), "middle bit": flip(good, len(good)/2), "last bit": flip(good, len(good)-1)} {
			w.Replace(path, imagetest.Body(bad))
			le := w.layerError(w.refused(ref, fault.ImageCorrupt), i, pull.WhatDigest)
			if le.Wanted != l.Digest || le.Seen != digest.FromBytes(bad).String() {
				t.Errorf("%s: %+v", name, le)
			}
		}
		for name, bad := range map[string][]byte{"cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "empty": {}} {
			w.Replace(path, imagetest.Body(bad))
			if le := w.layerError(w.refused(ref, fault.ImageCorrupt), i, pull.WhatSize); le.Seen == le.Wanted {
				t.Errorf("%s: %+v", name, le)
			}
		}
		w.Replace(path, nil)
	}
	config := w.configPath(ref)
	w.Replace(config, imagetest.Body(flip(w.fetch(config), 5)))
	w.layerError(w.refused(ref, fault.ImageCorrupt), -1, pull.WhatDigest)
	w.Replace(config, nil)
	if root := w.mount(w.pull(ref)); read(t, root, "two") != "2" {
		t.Error("the untouched image does not work any more")
	}
}

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 0x10
	return c
}

func (w *world) fetch(path string) []byte {
	w.t.Helper()
	resp, err := http.Get("http://" + w.Host + path)
	imagetest.Must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	imagetest.Must(w.t, err)
	return b
}

func (w *world) configPath(ref string) string {
	w.t.Helper()
	repo, r := imagetest.Repository(w.t, w.Config(), ref)
	m, err := repo.Manifest(w.t.Context(), r.Version())
	imagetest.Must(w.t, err)
	doc, err := m.Image()
	imagetest.Must(w.t, err)
	return "/v2/" + r.Path + "/blobs/" + doc.Config.Digest.String()
}

// Somebody who can sign exchanges ciphertext: every digest is right, and the
// HMAC is not.
func TestTamperedCiphertext(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	repo, r := imagetest.Repository(t, w.Config(), ref)
	for i := range 3 {
		for _, where := range []string{"first", "last"} {
			m, err := repo.Manifest(t.Context(), "v1")
			imagetest.Must(t, err)
			doc, err := m.Image()
			imagetest.Must(t, err)
			blob := w.fetch("/v2/" + r.Path + "/blobs/" + doc.Layers[i].Digest.String())
			at := 0
			if where == "last" {
				at = len(blob) - 1
			}
			forged := imagetest.Blob(t, repo, doc.Layers[i].MediaType, flip(blob, at))
			forged.Annotations = doc.Layers[i].Annotations
			doc.Layers[i] = forged
			imagetest.Manifest(t, repo, "forged", *doc)
			w.sign(w.ref("app:forged"))
			le := w.layerError(w.refused(w.ref("app:forged"), fault.ImageCorrupt), i, pull.WhatHMAC)
			if le.Seen == "" || le.Seen == le.Wanted {
				t.Errorf("%+v", le)
			}
		}
	}
}

// The packet of one layer on another: HMAC under the wrong key.
func TestExchangedKeys(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	repo, _ := imagetest.Repository(t, w.Config(), ref)
	m, err := repo.Manifest(t.Context(), "v1")
	imagetest.Must(t, err)
	doc, err := m.Image()
	imagetest.Must(t, err)
	doc.Layers[1].Annotations[crypt.AnnotationPackets] = doc.Layers[0].Annotations[crypt.AnnotationPackets]
	imagetest.Manifest(t, repo, "mixed", *doc)
	w.sign(w.ref("app:mixed"))
	w.layerError(w.refused(w.ref("app:mixed"), fault.ImageCorrupt), 1, pull.WhatHMAC)
}

func TestWrongDiffID(t *testing.T) {
	w := newWorld(t)
	l := layers(t)
	l[1].DiffID = digest.FromString("something else")
	ref := w.ship("app:v1", l...)
	le := w.layerError(w.refused(ref, fault.ImageCorrupt), 1, pull.WhatDiffID)
	if le.Wanted != l[1].DiffID.String() || le.Seen != layers(t)[1].DiffID.String() {
		t.Errorf("%+v", le)
	}
	// The same in the clear, with bytes after the archive that only the diffID
	// covers.
	raw := imagetest.Tar(t, imagetest.File("f", "x"))
	imagetest.Push(t, w.Server, w.ref("tail:v1"), nil, imagetest.Layer{
		MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Blob: imagetest.Gzip(t, append(bytes.Clone(raw), "tail"...)), DiffID: digest.FromBytes(raw)})
	w.sign(w.ref("tail:v1"))
	w.layerError(w.refused(w.ref("tail:v1"), fault.ImageCorrupt), 0, pull.WhatDiffID)
}

// An image names the diffID of somebody else's encrypted layer and brings its
// own blob and key: it must not get that layer from the store.
func TestForeignDiffIDGivesNothing(t *testing.T) {
	w := newWorld(t)
	victim := imagetest.GzipLayer(t, imagetest.File("secret", "s"))
	w.pull(w.ship("victim:v1", victim))
	thief := imagetest.GzipLayer(t, imagetest.File("nothing", ""))
	thief.DiffID = victim.DiffID
	w.layerError(w.refused(w.ship("thief:v1", thief), fault.ImageCorrupt), 0, pull.WhatDiffID)
	imagetest.Push(t, w.Server, w.ref("plain:v1"), nil, thief)
	w.sign(w.ref("plain:v1"))
	w.layerError(w.refused(w.ref("plain:v1"), fault.ImageCorrupt), 0, pull.WhatDiffID)
}
