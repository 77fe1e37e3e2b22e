package keyset_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	imagetest.Must(t, err)
}

func key(t testing.TB) crypt.WrappedKey {
	t.Helper()
	packet, err := crypt.SealPacket(secret.Random(32), "kbs:///a/b/c", secret.Copy([]byte("options")))
	must(t, err)
	return crypt.WrappedKey{Scheme: crypt.SchemeProvider, Packet: packet}
}

func set(t testing.TB, layers ...string) keyset.Set {
	t.Helper()
	s := keyset.Set{}
	for _, l := range layers {
		s[digest.FromString(l)] = []crypt.WrappedKey{key(t), key(t)}
	}
	return s
}

func TestParse(t *testing.T) {
	s := set(t, "a", "b")
	raw, err := s.Marshal()
	must(t, err)
	again, err := keyset.Parse(raw)
	must(t, err)
	if !reflect.DeepEqual(again, s) {
		t.Errorf("%v became %v", s, again)
	}
	d := digest.FromString("a")
	layer := func(d, annotations string) string {
		return fmt.Sprintf(`{"schemaVersion":1,"layers":[{"digest":%q,"annotations":%s}]}`, d, annotations)
	}
	ctr := base64.StdEncoding.EncodeToString([]byte(`{"kid":"kbs:///a/b/c","wrapped_data":"AAAA","iv":"AAAAAAAAAAAAAAAAAAAAAA==","wrap_type":"A256CTR"}`))
	for name, doc := range map[string]string{
		"a packet that does not authenticate itself": layer(d.String(), fmt.Sprintf(`{%q:%q}`, crypt.AnnotationPackets, ctr)),
		"a kind that nobody knows":                   layer(d.String(), `{"org.opencontainers.image.enc.keys.pgp":"AAAA"}`),
		"other annotations":                          layer(d.String(), `{"org.opencontainers.image.enc.pubopts":"AAAA"}`),
	} {
		if s, err := keyset.Parse([]byte(doc)); err != nil || len(s[d]) != 0 {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	for name, doc := range map[string]string{
		"nothing": "", "not JSON": "x", "trailing": string(raw) + "{}", "an array": "[]",
		"another version":  strings.Replace(string(raw), `"schemaVersion":1`, `"schemaVersion":2`, 1),
		"no version":       `{"layers":[]}`,
		"no digest":        layer("", "{}"),
		"a weak digest":    layer("md5:d41d8cd98f00b204e9800998ecf8427e", "{}"),
		"a layer twice":    fmt.Sprintf(`{"schemaVersion":1,"layers":[{"digest":%q},{"digest":%q}]}`, d, d),
		"not base64":       layer(d.String(), fmt.Sprintf(`{%q:"!"}`, crypt.AnnotationPackets)),
		"too many packets": layer(d.String(), fmt.Sprintf(`{%q:%q}`, crypt.AnnotationPackets, strings.Repeat("AAAA,", 16)+"AAAA")),
		"too many layers":  `{"schemaVersion":1,"layers":[` + strings.Repeat(`{},`, 1024) + `{}]}`,
		"too large":        string(raw) + strings.Repeat(" ", 1<<20),
	} {
		if _, err := keyset.Parse([]byte(doc)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestPushAndFetch(t *testing.T) {
	s := imagetest.Serve(t)
	m := imagetest.Push(t, s, s.Host+"/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/app")
	one, two := set(t, "a"), set(t, "a", "b")
	first, err := keyset.Push(t.Context(), repo, m.Descriptor(), one)
	must(t, err)
	_, err = keyset.Push(t.Context(), repo, m.Descriptor(), two)
	must(t, err)
	again, err := keyset.Push(t.Context(), repo, m.Descriptor(), one) // once more is no more
	must(t, err)
	if again.Digest != first.Digest {
		t.Errorf("the same set is %s and %s", first.Digest, again.Digest)
	}
	f, err := keyset.Fetch(t.Context(), repo, m.Digest)
	must(t, err)
	want := maps.Clone(two)
	d := digest.FromString("a")
	want[d] = append(append([]crypt.WrappedKey{}, one[d]...), two[d]...)
	if len(f.Manifests) != 2 || len(f.Broken) != 0 || !reflect.DeepEqual(f.Keys, want) {
		t.Errorf("%+v", f)
	}
	gone, err := registry.Detach(t.Context(), repo, m.Digest, first.Digest)
	must(t, err)
	if f, err = keyset.Fetch(t.Context(), repo, m.Digest); err != nil || !gone || !reflect.DeepEqual(f.Keys, two) {
		t.Errorf("after one was removed: %v, %+v, %v", gone, f, err)
	}
	if f, err = keyset.Fetch(t.Context(), repo, first.Digest); err != nil || len(f.Keys) != 0 {
		t.Errorf("an image without sets: %+v, %v", f, err)
	}
}

// The same where the registry keeps the list of referrers.
func TestRegistryThatLists(t *testing.T) {
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)), ggcr.WithReferrersSupport(true)))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	repo, _ := imagetest.Repository(t, registry.Config{InsecureHTTPHosts: []string{host}}, host+"/app")
	config := imagetest.Blob(t, repo, ocispec.MediaTypeImageConfig, []byte("{}"))
	m := imagetest.Manifest(t, repo, "v1", ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config})
	s := set(t, "a")
	_, err := keyset.Push(t.Context(), repo, m.Descriptor(), s)
	must(t, err)
	if f, err := keyset.Fetch(t.Context(), repo, m.Digest); err != nil || !reflect.DeepEqual(f.Keys, s) {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := repo.Manifest(t.Context(), "sha256-"+m.Digest.Encoded()); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the fallback tag was written: %v", err)
	}
}

// What strangers put beside an image is left out, and said.
func TestFetchLeavesOut(t *testing.T) {
	s := imagetest.Serve(t)
	m := imagetest.Push(t, s, s.Host+"/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	other := imagetest.Push(t, s, s.Host+"/app:v2", nil, imagetest.GzipLayer(t, imagetest.File("b", "b")))
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/app")
	good := set(t, "a")
	pushed, err := keyset.Push(t.Context(), repo, m.Descriptor(), good)
	must(t, err)
	raw, err := good.Marshal()
	must(t, err)
	subject, foreign := m.Descriptor(), other.Descriptor()
	attach := func(mediaType string, raw []byte, subject *ocispec.Descriptor) ocispec.Descriptor {
		layer := imagetest.Blob(t, repo, mediaType, raw)
		config := imagetest.Blob(t, repo, ocispec.MediaTypeEmptyJSON, []byte("{}"))
		doc := imagetest.JSON(t, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			ArtifactType: keyset.ArtifactType, Config: config, Layers: []ocispec.Descriptor{layer}, Subject: subject})
		pushed, err := repo.PushManifest(t.Context(), "", ocispec.MediaTypeImageManifest, doc)
		must(t, err)
		desc := pushed.Descriptor()
		desc.ArtifactType = keyset.ArtifactType
		return desc
	}
	missing := attach(keyset.ArtifactType, []byte(`{"schemaVersion":1}`), &subject)
	s.Replace("/v2/app/manifests/"+missing.Digest.String(), http.NotFound)
	entries := []ocispec.Descriptor{
		attach(keyset.ArtifactType, []byte("{}"), &subject),                       // no set
		attach("text/plain", raw, &subject),                                       // no set either
		attach(keyset.ArtifactType, raw, &foreign),                                // of another image
		attach(keyset.ArtifactType, raw, nil),                                     // of no image
		attach(keyset.ArtifactType, bytes.Repeat([]byte(" "), 1<<20+1), &subject), // too large
		missing, foreign,
	}
	list := func(entries ...ocispec.Descriptor) {
		_, err := repo.PushManifest(t.Context(), "sha256-"+m.Digest.Encoded(), ocispec.MediaTypeImageIndex, imagetest.JSON(t, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries}))
		must(t, err)
	}
	mine := pushed.Descriptor()
	mine.ArtifactType = keyset.ArtifactType
	list(append(entries, mine)...)
	f, err := keyset.Fetch(t.Context(), repo, m.Digest)
	must(t, err)
	if len(f.Broken) != 6 || len(f.Manifests) != 1 || !reflect.DeepEqual(f.Keys, good) {
		t.Errorf("%+v", f)
	}
	list(append(append(entries[:6:6], entries[:6]...), mine)...)
	if f, err = keyset.Fetch(t.Context(), repo, m.Digest); err != nil || len(f.Keys) != 0 || !strings.Contains(f.Broken[len(f.Broken)-1], "more than") {
		t.Errorf("a flood: %+v, %v", f, err)
	}
	// A registry that fails is another thing than one without sets.
	s.Replace("/v2/app/manifests/sha256-"+m.Digest.Encoded(), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	if _, err := keyset.Fetch(t.Context(), repo, m.Digest); err == nil {
		t.Error("a registry that refuses has no sets")
	}
}

func FuzzParse(f *testing.F) {
	raw, err := set(f, "a").Marshal()
	must(f, err)
	f.Add(raw)
	f.Add([]byte(`{"schemaVersion":1,"layers":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := keyset.Parse(raw)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		must(t, err)
		if back, err := keyset.Parse(again); err != nil || len(back) != len(s) || !json.Valid(again) {
			t.Fatalf("%s means %s, %v", raw, again, err)
		}
	})
}
