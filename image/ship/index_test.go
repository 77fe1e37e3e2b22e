package ship_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// events collects what is told from several goroutines.
type events struct {
	mu  sync.Mutex
	all []ship.Event
}

func (e *events) add(x ship.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
}

func (e *events) count(p ship.Phase) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if x.Phase == p {
			n++
		}
	}
	return n
}

// pushMulti pushes one image for each architecture, which share a layer, with an
// attestation beside them as BuildKit makes it.
func pushMulti(t *testing.T, s *imagetest.Server, arches ...string) (blobs map[string][]byte, shared []byte) {
	t.Helper()
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/multi")
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Annotations: map[string]string{"a": "kept"},
	}
	base := imagetest.GzipLayer(t, imagetest.File("base", "base"))
	blobs = map[string][]byte{}
	for _, arch := range arches {
		l := imagetest.GzipLayer(t, imagetest.File(arch, arch))
		blobs[arch] = l.Blob
		d := imagetest.Push(t, s, s.Host+"/multi:"+arch, nil, base, l).Descriptor()
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		d.Data, d.URLs = []byte("that of the plain manifest"), []string{"https://elsewhere.example"}
		index.Manifests = append(index.Manifests, d)
	}
	about := imagetest.Push(t, s, s.Host+"/multi:about", nil, base).Descriptor()
	about.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	about.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index.Manifests = append(index.Manifests, about)
	_, err := repo.PushManifest(t.Context(), "v1", index.MediaType, imagetest.JSON(t, index))
	must(t, err)
	return blobs, base.Blob
}

func TestEncryptEveryPlatform(t *testing.T) {
	for name, place := range map[string]ship.KeyPlace{"keys in the manifest": ship.KeysInManifest, "keys beside": ship.KeysBeside} {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			arches := []string{"s390x", registry.Native().Architecture, "riscv64"}
			blobs, shared := pushMulti(t, s, arches...)
			kek, me := secret.Random(32), newReader(t)
			var told events
			res, err := ship.Encrypt(t.Context(), s.Host+"/multi:v1", s.Host+"/enc:v1", ship.EncryptOptions{
				KID: kid, KEK: kek, Recipients: []crypt.Recipient{me}, Keys: place, Registry: s.Config(), Check: true, Progress: told.add,
			})
			must(t, err)
			repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
			root, err := repo.Manifest(t.Context(), "v1")
			must(t, err)
			index, err := root.Index()
			must(t, err)
			if res.Digest != root.Digest.String() || res.Layers != 4 || len(res.Written) != 3 || !res.Checked || told.count(ship.PhaseChecked) != 4 {
				t.Errorf("%+v", res)
			}
			if len(index.Manifests) != 3 || index.Annotations["a"] != "kept" {
				t.Errorf("index %+v", index)
			}
			for i, arch := range arches {
				if res.Written[i].Platform != "linux/"+arch || res.Written[i].Digest != index.Manifests[i].Digest.String() {
					t.Errorf("%s: %+v", arch, res.Written[i])
				}
				if m := index.Manifests[i]; m.Data != nil || m.URLs != nil {
					t.Errorf("%s: the index has %q of the plain manifest", arch, m.Data)
				}
				found, err := registry.Resolve(t.Context(), repo, "v1", registry.Platform{OS: "linux", Architecture: arch})
				must(t, err)
				if place == ship.KeysBeside {
					continue // the check above opened them
				}
				_, plain, _ := decrypted(t, repo, found.Manifest.Digest.String(), kek)
				if !bytes.Equal(plain[0], shared) || !bytes.Equal(plain[1], blobs[arch]) {
					t.Errorf("%s: the layers came back as others", arch)
				}
			}
		})
	}
}

// What was written and cannot be opened is found before a guest does.
func TestEncryptChecksItsWork(t *testing.T) {
	s := imagetest.Serve(t)
	imagetest.Push(t, s, s.Host+"/plain:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	spoil := func(e ship.Event) {
		if e.Phase == ship.PhaseEncrypted {
			s.Replace("/v2/enc/blobs/"+e.Digest.String(), imagetest.Body(bytes.Repeat([]byte{1}, int(e.Total))))
		}
	}
	o := ship.EncryptOptions{KID: kid, KEK: secret.Random(32), Registry: s.Config(), Check: true, Progress: spoil}
	res, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v1", o)
	if err == nil || !strings.Contains(err.Error(), "check what was written") || res.Checked {
		t.Errorf("%+v, %v", res, err)
	}
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
	if _, err := repo.Manifest(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("an image that cannot be opened has a name: %v", err)
	}
	o.Check = false
	if res, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v2", o); err != nil || res.Checked {
		t.Errorf("not asked to: %+v, %v", res, err)
	}
	// Nobody here can open what is for recipients alone, and that is said.
	o = ship.EncryptOptions{Recipients: []crypt.Recipient{newReader(t)}, Registry: s.Config(), Check: true}
	if res, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v3", o); err != nil || res.Checked {
		t.Errorf("for others: %+v, %v", res, err)
	}
}

func TestEncryptRefusesIndexes(t *testing.T) {
	s := imagetest.Serve(t)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/multi")
	m := imagetest.Push(t, s, s.Host+"/multi:one", nil, imagetest.GzipLayer(t, imagetest.File("a", "a"))).Descriptor()
	about := m
	about.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	for _, name := range []string{"no-image", "nested"} {
		index, err := repo.PushManifest(t.Context(), name, ocispec.MediaTypeImageIndex, imagetest.JSON(t, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{about},
		}))
		must(t, err)
		about = index.Descriptor() // for the next one
		_, err = ship.Encrypt(t.Context(), s.Host+"/multi:"+name, s.Host+"/enc:"+name, ship.EncryptOptions{KID: kid, KEK: secret.Random(32), Registry: s.Config()})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if s.Requests("/v2/enc/") != 0 {
		t.Error("something was written for an index that was refused")
	}
}
