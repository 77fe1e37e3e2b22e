package genpolicy

import (
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// An image behind an index has two digests, and as many names.
func TestRegistries(t *testing.T) {
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	image, err := random.Image(100, 1)
	if err == nil {
		image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/x"}, User: "7:8", Env: []string{"A=1"}, WorkingDir: "/w"})
	}
	if err != nil {
		t.Fatal(err)
	}
	image = mutate.MediaType(image, types.OCIManifestSchema1)
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}},
	})
	tag := host + "/app:1"
	ref, err := name.ParseReference(tag)
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	client, err := registry.NewClient(registry.Config{InsecureHTTPHosts: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Registries{Client: client, Platform: registry.Platform{OS: "linux", Architecture: "arm64"}}.Image(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	whole, err1 := index.Digest()
	one, err2 := image.Digest()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if want := distinct(whole.String(), one.String()); !slices.Equal(got.Digests, want) {
		t.Errorf("digests %v, want %v", got.Digests, want)
	}
	if want := distinct(tag, host+"/app@"+whole.String(), host+"/app@"+one.String()); !slices.Equal(got.References, want) {
		t.Errorf("references %v, want %v", got.References, want)
	}
	if !slices.Equal(got.Entrypoint, []string{"/x"}) || got.User != "7:8" || got.WorkingDir != "/w" {
		t.Errorf("%+v", got)
	}
	if _, err := (Registries{Client: client, Platform: registry.Platform{OS: "linux", Architecture: "amd64"}}).Image(t.Context(), tag); err == nil {
		t.Error("an image for another platform was found")
	}
}
