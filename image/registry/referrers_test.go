package registry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// referrerServer is a registry that answers two requests: for referrers, with
// api, and for the fallback tag.
func referrerServer(t *testing.T, subject digest.Digest, api http.HandlerFunc, tagged string) *registry.Repository {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v2/a/app/referrers/"+subject.String(), api)
	mux.HandleFunc("GET /v2/a/app/manifests/sha256-"+subject.Encoded(), func(w http.ResponseWriter, r *http.Request) {
		if tagged == "" {
			http.NotFound(w, r)
			return
		}
		answerIndex(w, tagged)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	c, err := registry.NewClient(registry.Config{InsecureHTTPHosts: []string{host}, Retry: registry.Retry{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(host + "/a/app")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := c.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func answerIndex(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, _ = fmt.Fprint(w, body)
}

func indexOf(t *testing.T, names ...string) string {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, n := range names {
		index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(n), Size: 1})
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestReferrers(t *testing.T) {
	d := digest.FromString("subject")
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	pages := func(link string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("n") == "" {
				w.Header().Set("Link", link)
				answerIndex(w, indexOf(t, "a"))
				return
			}
			answerIndex(w, indexOf(t, "b", "c"))
		}
	}
	tests := []struct {
		name   string
		api    http.HandlerFunc
		tagged string
		want   int // referrers; -1: an error
	}{
		{"the API", func(w http.ResponseWriter, _ *http.Request) { answerIndex(w, indexOf(t, "a", "b")) }, indexOf(t, "x"), 2},
		{"two pages", pages(`<?n=2>; rel="next"`), "", 3},
		{"a page elsewhere", pages(`<http://127.0.0.1:1/v2/a/app/referrers/x?n=2>; rel="next"`), "", -1},
		{"another list's page", pages(`</v2/b/app/referrers/x?n=2>; rel="next"`), "", -1},
		{"pages without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<?n=2>; rel="next"`)
			answerIndex(w, indexOf(t, "a"))
		}, "", -1},
		{"no API, a tag", status(http.StatusNotFound), indexOf(t, "x"), 1},
		{"no such method, a tag", status(http.StatusMethodNotAllowed), indexOf(t, "x"), 1},
		{"neither", status(http.StatusNotFound), "", 0},
		{"no right", status(http.StatusForbidden), indexOf(t, "x"), -1},
		{"broken", status(http.StatusInternalServerError), indexOf(t, "x"), -1},
		{"no index", func(w http.ResponseWriter, _ *http.Request) { answerIndex(w, `{"schemaVersion":2,"layers":[]}`) }, "", -1},
		{"bad digests", func(w http.ResponseWriter, _ *http.Request) {
			answerIndex(w, `{"schemaVersion":2,"manifests":[{"digest":"x","size":1}]}`)
		}, "", -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := referrerServer(t, d, tt.api, tt.tagged).Referrers(t.Context(), d)
			if tt.want < 0 && err == nil || tt.want >= 0 && (err != nil || len(list) != tt.want) {
				t.Fatalf("got %v, %v", list, err)
			}
		})
	}
	var many []string
	for i := range 600 {
		many = append(many, fmt.Sprint(i))
	}
	repo := referrerServer(t, d, func(w http.ResponseWriter, _ *http.Request) { answerIndex(w, indexOf(t, many...)) }, "")
	if _, err := repo.Referrers(t.Context(), d); !errors.Is(err, registry.ErrMalformed) {
		t.Errorf("any number of referrers is read: %v", err)
	}
	if _, err := repo.Referrers(t.Context(), "x"); err == nil {
		t.Error("a bad digest is asked for")
	}
}
