package pull_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// shipFor encrypts and signs an image for these options.
func (w *world) shipFor(name string, o ship.EncryptOptions, layers ...imagetest.Layer) string {
	w.t.Helper()
	imagetest.Push(w.t, w.Server, w.Host+"/plain/"+name, nil, layers...)
	o.Registry = w.Config()
	_, err := ship.Encrypt(w.t.Context(), w.Host+"/plain/"+name, w.ref(name), o)
	imagetest.Must(w.t, err)
	w.sign(w.ref(name))
	return w.ref(name)
}

func (w *world) rekey(ref string, o ship.RekeyOptions) ship.RekeyResult {
	w.t.Helper()
	o.Registry = w.Config()
	done, err := ship.Rekey(w.t.Context(), ref, o)
	imagetest.Must(w.t, err)
	return done
}

func broker(t testing.TB, kek secret.Bytes) crypt.Recipient {
	t.Helper()
	r, err := crypt.BrokerRecipient(kid, kek)
	imagetest.Must(t, err)
	return r
}

// The key of an image is rotated, or taken from one reader and given to another,
// while digest and signature stay: a guest finds the new packets beside it.
func TestKeysBeside(t *testing.T) {
	w := newWorld(t)
	old, fresh := w.kek, secret.Random(32)
	layers := []imagetest.Layer{imagetest.GzipLayer(t, imagetest.File("a", "one")), imagetest.GzipLayer(t, imagetest.File("b", "two"))}
	inside := w.shipFor("inside:v1", ship.EncryptOptions{KID: kid, KEK: old}, layers...)
	beside := w.shipFor("beside:v1", ship.EncryptOptions{KID: kid, KEK: old, Keys: ship.KeysBeside}, layers...)
	w.Forget()
	signed := w.pull(inside).Digest
	if w.Requests("GET", "referrers", signed) != 0 {
		t.Error("keys were looked for beside an image whose own packets open")
	}
	w.Forget()
	held := w.pull(beside)
	if n := w.Requests("GET", "referrers", held.Digest); n != 1 { // for all layers
		t.Errorf("the list of referrers was read %d times", n)
	}
	for _, ref := range []string{inside, beside} {
		w.kek = old
		done := w.rekey(ref, ship.RekeyOptions{Recipients: []crypt.Recipient{broker(t, fresh)}, Unwrapper: w, Replace: true, Keys: ship.KeysBeside})
		if done.Digest != done.Before {
			t.Errorf("%s: the digest changed: %+v", ref, done)
		}
		w.kek = fresh
		img := w.pull(ref)
		target := filepath.Join(t.TempDir(), "root")
		imagetest.Must(t, os.Mkdir(target, 0o755))
		imagetest.Must(t, img.Mount(t.Context(), target))
		if b, err := os.ReadFile(filepath.Join(target, "b")); err != nil || string(b) != "two" {
			t.Errorf("%s: %q, %v", ref, b, err)
		}
		imagetest.Must(t, img.Unmount(target))
		w.kek = secret.Random(32)
		if le, ok := errors.AsType[*pull.LayerError](w.refused(ref, fault.ImageKey)); !ok || le.What != pull.WhatKey {
			t.Errorf("%s: another key: %v", ref, le)
		}
	}
}

// Whoever can write to the repository can put packets there; none of them makes
// a guest take other bytes for the image.
func TestKeysBesideOfStrangers(t *testing.T) {
	w := newWorld(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "one"))
	ref := w.shipFor("app:v1", ship.EncryptOptions{KID: kid, KEK: w.kek, Keys: ship.KeysBeside}, layer)
	other := w.shipFor("other:v1", ship.EncryptOptions{KID: kid, KEK: w.kek}, layer)
	repo, _ := imagetest.Repository(t, w.Config(), w.Host+"/signed/app")
	m, err := repo.Manifest(t.Context(), "v1")
	imagetest.Must(t, err)
	doc, err := m.Image()
	imagetest.Must(t, err)
	mine, err := keyset.Fetch(t.Context(), repo, m.Digest)
	imagetest.Must(t, err)
	foreignRepo, _ := imagetest.Repository(t, w.Config(), other)
	foreign, err := foreignRepo.Manifest(t.Context(), "v1")
	imagetest.Must(t, err)
	foreignDoc, err := foreign.Image()
	imagetest.Must(t, err)
	_, moved, err := crypt.ParseAnnotations(foreignDoc.Layers[0].Annotations)
	imagetest.Must(t, err)
	encrypted := doc.Layers[0].Digest
	good := mine.Keys[encrypted][0]
	short := crypt.WrappedKey{Scheme: good.Scheme, Packet: good.Packet[:len(good.Packet)-9]}
	tests := map[string]struct {
		keys []crypt.WrappedKey
		code fault.Code
		what string
	}{
		"the packet of another image": {moved, fault.ImageCorrupt, pull.WhatHMAC},
		"a cut packet":                {[]crypt.WrappedKey{short}, fault.ImageKey, pull.WhatKey},
		"none":                        {nil, fault.ImageKey, pull.WhatKey},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			push := func(s keyset.Set) {
				found, err := keyset.Fetch(t.Context(), repo, m.Digest)
				imagetest.Must(t, err)
				list, err := keyset.Push(t.Context(), repo, m.Descriptor(), s)
				imagetest.Must(t, err)
				for _, d := range found.Manifests {
					if d != list.Digest {
						_, err := registry.Detach(t.Context(), repo, m.Digest, d)
						imagetest.Must(t, err)
					}
				}
			}
			push(keyset.Set{encrypted: tt.keys})
			w.layerError(w.refused(ref, tt.code), 0, tt.what)
			push(mine.Keys)
			imagetest.Must(t, w.pull(ref).Release())
		})
	}
	t.Run("a registry that hides the list", func(t *testing.T) {
		w.Replace("/v2/signed/app/manifests/sha256-"+m.Digest.Encoded(), func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotFound) })
		defer w.Replace("/v2/signed/app/manifests/sha256-"+m.Digest.Encoded(), nil)
		err := w.refused(ref, fault.ImageKey)
		if le := w.layerError(err, 0, pull.WhatKey); !strings.Contains(le.Err.Error(), "no key packet") {
			t.Error(le)
		}
	})
}
