package ship_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// reader is somebody with a key of his own.
type reader struct {
	crypt.Recipient
	keys *crypt.Keyring
}

func newReader(t testing.TB) reader {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	r := reader{keys: new(crypt.Keyring)}
	must(t, r.keys.Add(pkcs8(t, key)))
	r.Recipient, err = crypt.NewRecipient(crypt.SchemeJWE, spki(t, key.Public()))
	must(t, err)
	return r
}

// keks hands out one key-encrypting key.
func keks(kek secret.Bytes) crypt.KEKs {
	return func(_ context.Context, id string) (secret.Bytes, error) {
		if id != kid {
			return secret.Bytes{}, errors.New("no such key")
		}
		return kek, nil
	}
}

// rekeyed is what became of an image that no index names.
type rekeyed struct {
	ship.RekeyedImage

	Left []string
}

// opens reports whether u opens every layer with a packet of the manifest, and
// with one beside the image.
func opens(t testing.TB, src registry.Source, version string, u crypt.KeyUnwrapper) (inManifest, beside bool) {
	t.Helper()
	res, err := registry.Resolve(t.Context(), src, version, registry.Native())
	must(t, err)
	found, err := keyset.Fetch(t.Context(), src, res.Manifest.Digest)
	must(t, err)
	opened := func(keys []crypt.WrappedKey) bool {
		return slices.ContainsFunc(keys, func(w crypt.WrappedKey) bool {
			doc, err := u.Unwrap(t.Context(), w)
			if err == nil {
				_, err = crypt.ParsePrivate(doc)
			}
			return err == nil
		})
	}
	inManifest, beside = true, true
	for _, l := range res.Image.Layers {
		_, keys, err := crypt.ParseAnnotations(l.Annotations)
		must(t, err)
		inManifest, beside = inManifest && opened(keys), beside && opened(found.Keys[l.Digest])
	}
	return inManifest, beside
}

func TestRekey(t *testing.T) {
	s := imagetest.Serve(t)
	imagetest.Push(t, s, s.Host+"/plain:v1", nil,
		imagetest.GzipLayer(t, imagetest.File("a", "a")), imagetest.GzipLayer(t, imagetest.File("b", "b")))
	kek := secret.Random(32)
	first, second, third := newReader(t), newReader(t), newReader(t)
	layout := filepath.Join(t.TempDir(), "out")
	for name, dst := range map[string]string{"registry": s.Host + "/enc:v1", "layout": "oci:" + layout + ":v1"} {
		t.Run(name, func(t *testing.T) {
			opt := ship.EncryptOptions{KID: kid, KEK: kek, Recipients: []crypt.Recipient{first}, Registry: s.Config()}
			encrypted, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", dst, opt)
			must(t, err)
			var src registry.Source
			if name == "layout" {
				src, err = registry.OpenLayout(layout)
				must(t, err)
			} else {
				src, _ = imagetest.Repository(t, s.Config(), s.Host+"/enc")
			}
			check := func(what string, u crypt.KeyUnwrapper, inManifest, beside bool) {
				t.Helper()
				if m, b := opens(t, src, "v1", u); m != inManifest || b != beside {
					t.Errorf("%s: in the manifest %v, beside %v, want %v and %v", what, m, b, inManifest, beside)
				}
			}
			rekey := func(o ship.RekeyOptions) rekeyed {
				t.Helper()
				o.Registry = s.Config()
				done, err := ship.Rekey(t.Context(), dst, o)
				must(t, err)
				if len(done.Images) != 1 || done.Images[0].Layers != 2 || !strings.Contains(done.Reference, strings.TrimSuffix(dst, ":v1")) || done.Digest != done.Images[0].Digest {
					t.Fatalf("%+v", done)
				}
				return rekeyed{done.Images[0], done.Left}
			}
			check("the broker's key", keks(kek), true, false)
			check("the first reader", first.keys, true, false)

			// Keys in the manifest are wrapped again there: another digest.
			done := rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{second}, Unwrapper: keks(kek)})
			if done.Keys != ship.KeysInManifest || done.Before != encrypted.Digest || done.Digest == done.Before || done.KeySet != "" || len(done.Left) != 0 {
				t.Errorf("added in the manifest: %+v", done)
			}
			check("the second reader, added", second.keys, true, false)
			check("the broker's key, kept", keks(kek), true, false)

			// Beside the image, its digest stays; from then on that is where keys go.
			before := done.Digest
			done = rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{third}, Unwrapper: second.keys, Keys: ship.KeysBeside})
			if done.Keys != ship.KeysBeside || done.Digest != before || done.Before != before || done.KeySet == "" {
				t.Errorf("added beside: %+v", done)
			}
			check("the third reader, beside", third.keys, false, true)
			set := done.KeySet
			done = rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{first}, Unwrapper: third.keys})
			if done.Keys != ship.KeysBeside || done.Digest != before || done.KeySet == set {
				t.Errorf("added beside again: %+v", done)
			}
			check("the first reader, beside too", first.keys, true, true)
			check("the third reader, kept", third.keys, false, true)

			done = rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{second}, Unwrapper: third.keys, Replace: true})
			if done.Digest != before || len(done.Left) != 1 || !strings.Contains(done.Left[0], "annotations") {
				t.Errorf("replaced beside: %+v", done)
			}
			check("the third reader, replaced", third.keys, false, false)
			check("the second reader, instead", second.keys, true, true)

			// Back into the manifest, for one reader alone.
			done = rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{third}, Unwrapper: second.keys, Replace: true, Keys: ship.KeysInManifest})
			if done.Digest == before || len(done.Left) != 1 || !strings.Contains(done.Left[0], before) {
				t.Errorf("replaced in the manifest: %+v", done)
			}
			check("the third reader, alone", third.keys, true, false)
			check("the second reader, replaced", second.keys, false, false)
			check("the broker's key, replaced", keks(kek), false, false)
		})
	}
}

// An image can be shipped with its keys beside it from the beginning.
func TestEncryptWithKeysBeside(t *testing.T) {
	s := imagetest.Serve(t)
	imagetest.Push(t, s, s.Host+"/plain:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	kek, other := secret.Random(32), newReader(t)
	res, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v1", ship.EncryptOptions{KID: kid, KEK: kek, Keys: ship.KeysBeside, Registry: s.Config()})
	must(t, err)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
	if m, b := opens(t, repo, "v1", keks(kek)); m || !b {
		t.Errorf("in the manifest %v, beside %v", m, b)
	}
	in, err := ship.Inspect(t.Context(), s.Host+"/enc:v1", ship.InspectOptions{Registry: s.Config()})
	must(t, err)
	if l := in.Layers[0]; l.Keys != nil || len(l.Beside) != 1 || l.Beside[0] != kid || l.Problem != "" {
		t.Errorf("%+v", l)
	}
	done, err := ship.Rekey(t.Context(), s.Host+"/enc:v1", ship.RekeyOptions{Recipients: []crypt.Recipient{other}, Unwrapper: keks(kek), Replace: true, Registry: s.Config()})
	must(t, err)
	if done.Digest != res.Digest || done.Images[0].Keys != ship.KeysBeside || len(done.Left) != 0 {
		t.Errorf("%+v", done)
	}
	if _, b := opens(t, repo, "v1", other.keys); !b {
		t.Error("the new reader opens nothing")
	}
	if _, b := opens(t, repo, "v1", keks(kek)); b {
		t.Error("the replaced key still opens the image")
	}
}

func TestRekeyRefuses(t *testing.T) {
	s := imagetest.Serve(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "a"))
	imagetest.Push(t, s, s.Host+"/plain:v1", nil, layer)
	kek, me := secret.Random(32), newReader(t)
	enc := func(name string, o ship.EncryptOptions) {
		o.Registry = s.Config()
		_, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/"+name, o)
		must(t, err)
	}
	enc("enc:v1", ship.EncryptOptions{KID: kid, KEK: kek})
	enc("others:v1", ship.EncryptOptions{Recipients: []crypt.Recipient{newReader(t)}})
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
	m, err := repo.Manifest(t.Context(), "v1")
	must(t, err)
	// The packet of one image in another: it opens, so it says nothing of the
	// image; the pull refuses it by the layer's HMAC. A broken one opens nothing.
	doc, err := m.Image()
	must(t, err)
	doc.Layers[0].Annotations[crypt.AnnotationPackets] = "AAAA"
	imagetest.Manifest(t, repo, "broken", *doc)
	delete(doc.Layers[0].Annotations, crypt.AnnotationPackets)
	imagetest.Manifest(t, repo, "keyless", *doc)
	entry := m.Descriptor()
	entry.Platform = &ocispec.Platform{OS: "linux", Architecture: registry.Native().Architecture}
	index, err := repo.PushManifest(t.Context(), "index", ocispec.MediaTypeImageIndex, imagetest.JSON(t, ocispec.Index{
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry},
		Versioned: specs.Versioned{SchemaVersion: 2},
	}))
	must(t, err)
	good := ship.RekeyOptions{Recipients: []crypt.Recipient{me}, Unwrapper: keks(kek), Registry: s.Config()}
	for name, c := range map[string]struct {
		ref  string
		o    func(*ship.RekeyOptions)
		want string
	}{
		"nobody":                 {"/enc:v1", func(o *ship.RekeyOptions) { o.Recipients = nil }, "recipients"},
		"nothing to open":        {"/enc:v1", func(o *ship.RekeyOptions) { o.Unwrapper = nil }, "what opens"},
		"a plain image":          {"/plain:v1", nil, "no encrypted layer"},
		"another's image":        {"/others:v1", nil, "not opened here"},
		"another's key":          {"/enc:v1", func(o *ship.RekeyOptions) { o.Unwrapper = keks(secret.Random(32)) }, "does not open"},
		"a broken packet":        {"/enc:broken", nil, "key packet"},
		"no packet":              {"/enc:keyless", nil, "no key packet"},
		"by digest":              {"/enc@" + m.Digest.String(), nil, "name its tag"},
		"an index by digest":     {"/enc@" + index.Digest.String(), nil, "name its tag"},
		"nothing but to replace": {"/enc:v1", func(o *ship.RekeyOptions) { o.Recipients, o.Replace, o.Remove = nil, true, []string{kid} }, "nobody could"},
		"the last who can":       {"/enc:v1", func(o *ship.RekeyOptions) { o.Recipients, o.Remove = nil, []string{kid} }, "nobody could open layer"},
		"a reader who is none":   {"/enc:v1", func(o *ship.RekeyOptions) { o.Remove = []string{"jwe"} }, "no key packet is for jwe"},
		"a reader elsewhere":     {"/enc:v1", func(o *ship.RekeyOptions) { o.Keys, o.Remove = ship.KeysBeside, []string{kid} }, "are in the manifest"},
		"no image":               {"/enc:v2", nil, "not found"},
		"too many at once":       {"/enc:v1", func(o *ship.RekeyOptions) { o.Recipients = slices.Repeat(o.Recipients, 16) }, "at most"},
		"too many, beside":       {"/enc:v1", func(o *ship.RekeyOptions) { o.Keys, o.Recipients = ship.KeysBeside, slices.Repeat(o.Recipients, 17) }, "at most"},
		"not a place there":      {"oci:" + filepath.Join(t.TempDir(), "none"), nil, "no such file"},
	} {
		o := good
		if c.o != nil {
			c.o(&o)
		}
		ref := c.ref
		if strings.HasPrefix(ref, "/") {
			ref = s.Host + ref
		}
		if _, err := ship.Rekey(t.Context(), ref, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if again, err := repo.Manifest(t.Context(), "v1"); err != nil || again.Digest != m.Digest {
		t.Errorf("a refused image was changed: %s, %v", again.Digest, err)
	}
	if _, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/x:v1", ship.EncryptOptions{Registry: s.Config()}); err == nil {
		t.Error("encrypted for nobody")
	}
}

// Every platform of an index, and then one of them, with the keys in the
// manifests and beside them.
func TestRekeyIndex(t *testing.T) {
	for name, place := range map[string]ship.KeyPlace{"in the manifests": ship.KeysInManifest, "beside them": ship.KeysBeside} {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			arches := []string{"s390x", registry.Native().Architecture}
			pushMulti(t, s, arches...)
			kek, first, second := secret.Random(32), newReader(t), newReader(t)
			encrypted, err := ship.Encrypt(t.Context(), s.Host+"/multi:v1", s.Host+"/enc:v1", ship.EncryptOptions{KID: kid, KEK: kek, Keys: place, Registry: s.Config()})
			must(t, err)
			rekey := func(o ship.RekeyOptions) ship.RekeyResult {
				t.Helper()
				o.Registry = s.Config()
				done, err := ship.Rekey(t.Context(), s.Host+"/enc:v1", o)
				must(t, err)
				return done
			}
			opened := func(arch string, u crypt.KeyUnwrapper) bool {
				t.Helper()
				repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
				res, err := registry.Resolve(t.Context(), repo, "v1", registry.Platform{OS: "linux", Architecture: arch})
				must(t, err)
				in, beside := opens(t, repo, res.Manifest.Digest.String(), u)
				return in || beside
			}
			done := rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{first}, Unwrapper: keks(kek)})
			stays := place == ship.KeysBeside
			if len(done.Images) != 2 || done.Before != encrypted.Digest || (done.Digest == done.Before) != stays || len(done.Digests()) != 2 {
				t.Fatalf("%+v", done)
			}
			for i, arch := range arches {
				if im := done.Images[i]; im.Platform != "linux/"+arch || im.Keys != place || (im.Digest == im.Before) != stays || im.Layers != 2 {
					t.Errorf("%+v", im)
				}
				if !opened(arch, first.keys) || !opened(arch, keks(kek)) {
					t.Errorf("%s does not open for both", arch)
				}
			}
			// One goes, without any key being opened.
			rekey(ship.RekeyOptions{Remove: []string{kid}})
			// One platform alone.
			only := rekey(ship.RekeyOptions{Recipients: []crypt.Recipient{second}, Unwrapper: first.keys, Platform: registry.Platform{OS: "linux", Architecture: arches[0]}})
			if len(only.Images) != 1 || (only.Digest == only.Before) != stays {
				t.Errorf("%+v", only)
			}
			for i, arch := range arches {
				if opened(arch, keks(kek)) || !opened(arch, first.keys) || opened(arch, second.keys) != (i == 0) {
					t.Errorf("%s opens for others than it should", arch)
				}
			}
		})
	}
}

// An index keeps what is not about the manifests that changed.
func TestRekeyIndexWithAttestations(t *testing.T) {
	s := imagetest.Serve(t)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
	imagetest.Push(t, s, s.Host+"/plain:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	kek := secret.Random(32)
	_, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:one", ship.EncryptOptions{KID: kid, KEK: kek, Registry: s.Config()})
	must(t, err)
	m, err := repo.Manifest(t.Context(), "one")
	must(t, err)
	entry, stale, other := m.Descriptor(), m.Descriptor(), m.Descriptor()
	entry.Platform = &ocispec.Platform{OS: "linux", Architecture: registry.Native().Architecture}
	about := func(subject string) map[string]string {
		return map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject}
	}
	stale.Annotations, other.Annotations = about(m.Digest.String()), about("sha256:"+strings.Repeat("0", 64))
	_, err = repo.PushManifest(t.Context(), "v1", ocispec.MediaTypeImageIndex, imagetest.JSON(t, ocispec.Index{
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry, stale, other}, Versioned: specs.Versioned{SchemaVersion: 2},
	}))
	must(t, err)
	_, err = ship.Rekey(t.Context(), s.Host+"/enc:v1", ship.RekeyOptions{Recipients: []crypt.Recipient{newReader(t)}, Unwrapper: keks(kek), Registry: s.Config()})
	must(t, err)
	root, err := repo.Manifest(t.Context(), "v1")
	must(t, err)
	index, err := root.Index()
	must(t, err)
	if len(index.Manifests) != 2 || index.Manifests[0].Digest == m.Digest || index.Manifests[1].Annotations["vnd.docker.reference.digest"] != other.Annotations["vnd.docker.reference.digest"] {
		t.Errorf("%+v", index.Manifests)
	}
}
