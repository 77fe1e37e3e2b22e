package registry_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// Referrers come and go in registries that list them by themselves, in those
// that do not, in those that delete nothing, and in layouts.
func TestAttachAndDetach(t *testing.T) {
	for name, c := range map[string]struct {
		lists  bool
		remove int // status of DELETE; 0: the registry's own
		gone   bool
		index  bool // whether the fallback tag is written
	}{
		"lists":                      {lists: true, gone: true},
		"lists, and deletes nothing": {lists: true, remove: http.StatusMethodNotAllowed},
		"lists none":                 {gone: true, index: true},
		"lists none, deletes none":   {remove: http.StatusMethodNotAllowed, gone: true, index: true},
	} {
		t.Run(name, func(t *testing.T) {
			var tagged atomic.Bool
			inner := ggcr.New(ggcr.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)), ggcr.WithReferrersSupport(c.lists))
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete && c.remove != 0 {
					w.WriteHeader(c.remove)
					return
				}
				if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/sha256-") {
					tagged.Store(true)
				}
				inner.ServeHTTP(w, r)
			}))
			defer srv.Close()
			host := strings.TrimPrefix(srv.URL, "http://")
			repo, _ := imagetest.Repository(t, registry.Config{InsecureHTTPHosts: []string{host}}, host+"/app")
			attachAndDetach(t, repo, c.gone)
			if tagged.Load() != c.index {
				t.Errorf("the fallback tag was written: %v", tagged.Load())
			}
		})
	}
	t.Run("layout", func(t *testing.T) {
		l, err := registry.CreateLayout(t.TempDir())
		imagetest.Must(t, err)
		attachAndDetach(t, l, true)
	})
}

func attachAndDetach(t *testing.T, store registry.Store, gone bool) {
	t.Helper()
	manifest := func(kind string, subject *ocispec.Descriptor) []byte {
		config := imagetest.Blob(t, store, kind, []byte("{}")) // some registries list this as the artifact type
		return imagetest.JSON(t, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			ArtifactType: kind, Config: config, Layers: []ocispec.Descriptor{config}, Subject: subject})
	}
	image, err := store.PushManifest(t.Context(), "v1", ocispec.MediaTypeImageManifest, manifest(ocispec.MediaTypeImageConfig, nil))
	imagetest.Must(t, err)
	subject := image.Descriptor()
	kinds := func() (list []string) {
		found, err := registry.ListReferrers(t.Context(), store, image.Digest)
		imagetest.Must(t, err)
		for _, d := range found {
			list = append(list, d.ArtifactType)
		}
		return list
	}
	if len(kinds()) != 0 {
		t.Error("referrers of an image that is new")
	}
	var first digest.Digest
	for _, kind := range []string{"text/one", "text/two", "text/one"} { // the last is there already
		m, err := registry.Attach(t.Context(), store, manifest(kind, &subject))
		imagetest.Must(t, err)
		if kind == "text/one" {
			first = m.Digest
		}
	}
	if list := kinds(); len(list) != 2 || !strings.Contains(strings.Join(list, " "), "text/two") {
		t.Errorf("attached: %v", list)
	}
	ok, err := registry.Detach(t.Context(), store, image.Digest, first)
	imagetest.Must(t, err)
	if list := kinds(); ok != gone || (len(list) == 1) != gone {
		t.Errorf("detached: %v, %v", ok, list)
	}
	if _, err := registry.Attach(t.Context(), store, manifest("text/none", nil)); err == nil {
		t.Error("a manifest without a subject was attached")
	}
	if _, err := registry.Attach(t.Context(), store, []byte("{}")); err == nil {
		t.Error("what is no manifest was attached")
	}
}
