package ship_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// puts refuses the writes of manifests after the first n, or those of one tag.
func puts(after int, tag string) func(*http.Request) int {
	n := 0
	return func(r *http.Request) int {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") || tag != "" && !strings.HasSuffix(r.URL.Path, "/"+tag) {
			return 0
		}
		if n++; n > after {
			return http.StatusInternalServerError
		}
		return 0
	}
}

// An image gets its name when all else is done. What fails before leaves the name
// where it was; where the name itself fails, nobody may throw the key away.
func TestEncryptNamesLast(t *testing.T) {
	s := imagetest.Serve(t)
	pushMulti(t, s, "s390x", registry.Native().Architecture)
	old := imagetest.Push(t, s, s.Host+"/enc:v1", nil, imagetest.GzipLayer(t, imagetest.File("old", "old")))
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
	refuse := errors.New("not signed")
	for name, c := range map[string]struct {
		breaks func(*http.Request) int
		before error
		half   bool
	}{
		"not all is written":      {breaks: puts(1, "")},
		"what comes before":       {before: refuse},
		"the name is not written": {breaks: puts(0, "v1"), half: true},
	} {
		for _, src := range []string{"/multi:v1", "/multi:s390x"} {
			s.Refuse(nil)
			o := ship.EncryptOptions{KID: kid, KEK: secret.Random(32), Registry: s.Config(), Check: true}
			o.Before = func(_ context.Context, done ship.Result) error {
				if _, err := repo.Manifest(t.Context(), done.Digest); err != nil || !done.Checked {
					t.Errorf("%s: asked too early: %+v, %v", name, done, err)
				}
				s.Refuse(c.breaks)
				return c.before
			}
			if name == "not all is written" {
				s.Refuse(puts(0, ""))
			}
			_, err := ship.Encrypt(t.Context(), s.Host+src, s.Host+"/enc:v1", o)
			if err == nil || errors.Is(err, ship.ErrHalfDone) != c.half || c.before != nil && !errors.Is(err, c.before) {
				t.Errorf("%s: %v", name, err)
			}
			s.Refuse(nil)
			if m, err := repo.Manifest(t.Context(), "v1"); err != nil || m.Digest != old.Digest {
				t.Errorf("%s: the name is elsewhere: %s, %v", name, m.Digest, err)
			}
		}
	}
}

// Whatever fails while keys are rotated, every platform opens: by the old key, or, where
// the error says that it may be needed, by the new one.
func TestRekeyIsNeverTorn(t *testing.T) {
	deletes := func(r *http.Request) int {
		if r.Method == http.MethodDelete {
			return http.StatusInternalServerError
		}
		return 0
	}
	for name, c := range map[string]struct {
		place  ship.KeyPlace
		breaks func(*http.Request) int
		half   bool
	}{
		"beside: the second set":      {ship.KeysBeside, puts(2, ""), false}, // a set, its entry in the list, and no more
		"beside: the old ones":        {ship.KeysBeside, deletes, true},
		"in the manifest: the second": {ship.KeysInManifest, puts(1, ""), false},
		"in the manifest: the index":  {ship.KeysInManifest, puts(2, ""), false},
		"in the manifest: the name":   {ship.KeysInManifest, puts(0, "v1"), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			arches := []string{"s390x", registry.Native().Architecture}
			pushMulti(t, s, arches...)
			kek, next := secret.Random(32), newReader(t)
			_, err := ship.Encrypt(t.Context(), s.Host+"/multi:v1", s.Host+"/enc:v1", ship.EncryptOptions{KID: kid, KEK: kek, Keys: c.place, Registry: s.Config()})
			must(t, err)
			s.Refuse(c.breaks)
			_, err = ship.Rekey(t.Context(), s.Host+"/enc:v1", ship.RekeyOptions{
				Recipients: []crypt.Recipient{next}, Unwrapper: keks(kek), Remove: []string{kid}, Registry: s.Config(),
			})
			s.Refuse(nil)
			if err == nil || errors.Is(err, ship.ErrHalfDone) != c.half {
				t.Errorf("got %v", err)
			}
			repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
			for _, arch := range arches {
				res, err := registry.Resolve(t.Context(), repo, "v1", registry.Platform{OS: "linux", Architecture: arch})
				must(t, err)
				in, beside := opens(t, repo, res.Manifest.Digest.String(), keks(kek))
				newIn, newBeside := opens(t, repo, res.Manifest.Digest.String(), next.keys)
				if kept := in || beside; !kept && !(c.half && (newIn || newBeside)) {
					t.Errorf("%s: what could open the image does not any more", arch)
				}
			}
		})
	}
}

// In a registry that lists referrers by itself, replaced keys are gone from its list, or
// it is said that they are not.
func TestRekeyWhereTheRegistryLists(t *testing.T) {
	for _, deletes := range []bool{true, false} {
		s := imagetest.Serve(t, ggcr.WithReferrersSupport(true))
		imagetest.Push(t, s, s.Host+"/plain:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
		kek, next := secret.Random(32), newReader(t)
		_, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v1", ship.EncryptOptions{KID: kid, KEK: kek, Keys: ship.KeysBeside, Registry: s.Config()})
		must(t, err)
		s.Refuse(func(r *http.Request) int {
			if r.Method == http.MethodDelete && !deletes {
				return http.StatusMethodNotAllowed
			}
			return 0
		})
		done, err := ship.Rekey(t.Context(), s.Host+"/enc:v1", ship.RekeyOptions{
			Recipients: []crypt.Recipient{next}, Unwrapper: keks(kek), Replace: true, Registry: s.Config(),
		})
		must(t, err)
		repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
		if _, old := opens(t, repo, "v1", keks(kek)); old == deletes || (len(done.Left) == 0) != deletes {
			t.Errorf("deletes %v: the old key opens it: %v, and what is left: %v", deletes, old, done.Left)
		}
		if _, now := opens(t, repo, "v1", next.keys); !now {
			t.Error("the new key does not open it")
		}
		if n := s.Requests("PUT", "/manifests/sha256-"); n != 0 {
			t.Errorf("%d writes of a list that the registry keeps itself", n)
		}
	}
}

// A plain image may carry what looks like keys. They are not those of the encrypted one.
func TestPlantedKeysAreLeftBehind(t *testing.T) {
	s := imagetest.Serve(t)
	l := imagetest.GzipLayer(t, imagetest.File("a", "a"))
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/plain")
	m := imagetest.Push(t, s, s.Host+"/plain:v1", nil, l)
	doc, err := m.Image()
	must(t, err)
	private, err := crypt.Private{Key: secret.Random(32), Nonce: make([]byte, 16)}.Marshal()
	must(t, err)
	reader := newReader(t)
	planted, err := reader.Wrap(private)
	must(t, err)
	doc.Layers[0].Annotations, err = crypt.KeyAnnotations(planted)
	must(t, err)
	doc.Layers[0].Annotations["kept"] = "yes"
	imagetest.Manifest(t, repo, "v1", *doc)
	for _, place := range []ship.KeyPlace{ship.KeysInManifest, ship.KeysBeside} {
		kek := secret.Random(32)
		_, err = ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v1", ship.EncryptOptions{KID: kid, KEK: kek, Keys: place, Registry: s.Config(), Check: true})
		must(t, err)
		out, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
		if in, beside := opens(t, out, "v1", reader.keys); in || beside {
			t.Errorf("%s: a key that somebody planted is among the image's", place)
		}
		res, err := registry.Resolve(t.Context(), out, "v1", registry.Native())
		must(t, err)
		if res.Image.Layers[0].Annotations["kept"] != "yes" {
			t.Error("other annotations are lost")
		}
	}
}

// Mirrors are for reading. What is signed, and what is written again, is what lies
// where it is written.
func TestMirrorsHaveNoSayInWhatIsWritten(t *testing.T) {
	origin, mirror := imagetest.Serve(t), imagetest.Serve(t)
	kek, reader := secret.Random(32), newReader(t)
	for _, s := range []*imagetest.Server{origin, mirror} {
		imagetest.Push(t, s, s.Host+"/plain:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", s.Host)))
		_, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/app:v1", ship.EncryptOptions{KID: kid, KEK: kek, Registry: s.Config()})
		must(t, err)
	}
	rules, err := registry.ParseRegistries([]byte("[[registry]]\nlocation='" + origin.Host + "'\ninsecure=true\n[[registry.mirror]]\nlocation='" + mirror.Host + "'\ninsecure=true"))
	must(t, err)
	cfg := registry.Config{Registries: rules, Clock: origin.Clock}
	there, _ := imagetest.Repository(t, origin.Config(), origin.Host+"/app")
	elsewhere, _ := imagetest.Repository(t, cfg, origin.Host+"/app")
	before, err := there.Manifest(t.Context(), "v1")
	must(t, err)
	if m, err := elsewhere.Manifest(t.Context(), "v1"); err != nil || m.Digest == before.Digest {
		t.Fatalf("the mirror is not asked: %v", err)
	}

	key, _, err := ship.GenerateKey()
	must(t, err)
	for _, form := range []ship.SignForm{ship.SignTag, ship.SignBundle} {
		mirror.Forget()
		signed, err := ship.Sign(t.Context(), origin.Host+"/app:v1", key, ship.SignOptions{Forms: []ship.SignForm{form}, Registry: cfg})
		must(t, err)
		if signed.Digest != before.Digest.String() || mirror.Requests() != 0 {
			t.Errorf("%s: signed %s, with %d requests to the mirror", form, signed.Digest, mirror.Requests())
		}
	}
	mirror.Forget()
	for _, place := range []ship.KeyPlace{ship.KeysBeside, ship.KeysInManifest} {
		done, err := ship.Rekey(t.Context(), origin.Host+"/app:v1", ship.RekeyOptions{Recipients: []crypt.Recipient{reader}, Unwrapper: keks(kek), Keys: place, Registry: cfg})
		must(t, err)
		if done.Before != before.Digest.String() || mirror.Requests() != 0 {
			t.Errorf("%s: rekeyed %s, with %d requests to the mirror", place, done.Before, mirror.Requests())
		}
	}
	_, err = ship.Encrypt(t.Context(), origin.Host+"/plain:v1", origin.Host+"/app:v2", ship.EncryptOptions{KID: kid, KEK: kek, Keys: ship.KeysBeside, Check: true, Registry: cfg})
	must(t, err)
	if n := mirror.Requests("/v2/app/"); n != 0 {
		t.Errorf("%d requests to the mirror for what was written", n)
	}
}
