package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// mirrored is asked for as app.test/team/app. It lies at the origin, and at two
// mirrors before it.
type mirrored struct {
	one, two, origin *imagetest.Server
	repo             *registry.Repository
}

func rule(options string, hosts ...string) string {
	s := "[[registry]]\nprefix='app.test'\ninsecure=true\nlocation='" + hosts[len(hosts)-1] + "/origin'\n" + options + "\n"
	for i, h := range hosts[:len(hosts)-1] {
		s += fmt.Sprintf("[[registry.mirror]]\ninsecure=true\nlocation='%s/m%d'\n", h, i+1)
	}
	return s
}

func client(t *testing.T, cfg registry.Config, conf string) *registry.Client {
	t.Helper()
	var err error
	cfg.Registries, err = registry.ParseRegistries([]byte(conf))
	imagetest.Must(t, err)
	cl, err := registry.NewClient(cfg)
	imagetest.Must(t, err)
	return cl
}

func open(t *testing.T, cl *registry.Client, name string) *registry.Repository {
	t.Helper()
	ref, err := registry.ParseReference(name)
	imagetest.Must(t, err)
	repo, err := cl.Repository(ref)
	imagetest.Must(t, err)
	return repo
}

func newMirrored(t *testing.T, options string) *mirrored {
	m := &mirrored{one: imagetest.Serve(t), two: imagetest.Serve(t), origin: imagetest.Serve(t)}
	cl := client(t, registry.Config{Clock: m.one.Clock, Retry: registry.Retry{Attempts: 2}}, rule(options, m.one.Host, m.two.Host, m.origin.Host))
	m.repo = open(t, cl, "app.test/team/app")
	return m
}

func TestMirrorsInOrder(t *testing.T) {
	m := newMirrored(t, "")
	layer := imagetest.GzipLayer(t, imagetest.File("a", "x"))
	want := imagetest.Push(t, m.origin, m.origin.Host+"/origin/team/app:v1", nil, layer)
	m.origin.Forget()
	check := func(one, two, origin int) {
		t.Helper()
		for _, s := range []*imagetest.Server{m.one, m.two, m.origin} {
			s.Forget()
		}
		got, err := m.repo.Manifest(t.Context(), "v1")
		if err != nil || got.Digest != want.Digest {
			t.Errorf("%s, %v", got.Digest, err)
		}
		if a, b, c := m.one.Requests("/manifests/"), m.two.Requests("/manifests/"), m.origin.Requests("/manifests/"); a != one || b != two || c != origin {
			t.Errorf("asked %d, %d and %d times", a, b, c)
		}
	}
	check(1, 1, 1) // the mirrors have it not: no fault of theirs
	imagetest.Push(t, m.two, m.two.Host+"/m2/team/app:v1", nil, layer)
	check(1, 1, 0)
	imagetest.Push(t, m.one, m.one.Host+"/m1/team/app:v1", nil, layer)
	check(1, 0, 0)
	m.one.Replace("/v2/m1/team/app/manifests/v1", status(http.StatusServiceUnavailable, ""))
	check(2, 1, 0) // asked twice, given up
	check(0, 1, 0) // and remembered
	m.two.Replace("/v2/m2/team/app/manifests/v1", status(http.StatusForbidden, ""))
	check(0, 1, 1)
}

// Only the origin can say that something does not exist.
func TestAbsentMeansAbsentAtTheOrigin(t *testing.T) {
	m := newMirrored(t, "")
	if _, err := m.repo.Manifest(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	m.origin.Replace("/v2/origin/team/app/manifests/v1", status(http.StatusServiceUnavailable, ""))
	if _, err := m.repo.Manifest(t.Context(), "v1"); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestMirrorsByDigestOnly(t *testing.T) {
	m := newMirrored(t, "mirror-by-digest-only=true")
	layer := imagetest.GzipLayer(t, imagetest.File("a", "x"))
	imagetest.Push(t, m.one, m.one.Host+"/m1/team/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "old")))
	imagetest.Push(t, m.one, m.one.Host+"/m1/team/app:other", nil, layer)
	want := imagetest.Push(t, m.origin, m.origin.Host+"/origin/team/app:v1", nil, layer)
	if got, err := m.repo.Manifest(t.Context(), "v1"); err != nil || got.Digest != want.Digest {
		t.Errorf("by tag: %s, %v", got.Digest, err)
	}
	m.origin.Forget()
	if got, err := m.repo.Manifest(t.Context(), want.Digest.String()); err != nil || got.Digest != want.Digest || m.origin.Requests() != 0 {
		t.Errorf("by digest: %s, %v, %d requests at the origin", got.Digest, err, m.origin.Requests())
	}
}

// A mirror that breaks in the middle of a blob and does not recover is left,
// and the next one goes on at the same byte.
func TestMirrorFailoverInMidBlob(t *testing.T) {
	m := newMirrored(t, "")
	flaky := []*imagetest.Flaky{
		{Breaks: slices.Repeat([]int{1000}, 9)},
		{Breaks: []int{5000, 6000}, NoRange: true}, // cannot go on: skipped
		{Breaks: []int{9000}},
	}
	var blob []byte
	for i := range 3000 {
		blob = fmt.Appendf(blob, "line %d\n", i)
	}
	path := "/blobs/" + digest.FromBytes(blob).String()
	for i, f := range flaky {
		f.Blob = blob
		[]*imagetest.Server{m.one, m.two, m.origin}[i].Replace("/v2/"+[]string{"m1", "m2", "origin"}[i]+"/team/app"+path, f.ServeHTTP)
	}
	repo, _ := imagetest.Repository(t, m.one.Config(), m.one.Host+"/m1/team/app")
	desc := imagetest.Blob(t, repo, "x", blob)
	got, err := registry.ReadBlob(t.Context(), m.repo, desc, 1<<20)
	if err != nil || string(got) != string(blob) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for i, want := range [][]string{{"", "bytes=1000-"}, {"bytes=1000-"}, {"bytes=1000-", "bytes=9000-"}} {
		if seen := flaky[i].Ranges(); !slices.Equal(seen, want) {
			t.Errorf("server %d: ranges %q, wanted %q", i, seen, want)
		}
	}
}

// Each place gets its own credential; the origin's never goes to a mirror.
func TestMirrorsGetTheirOwnCredentials(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	serve := func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		if !ok && r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.Lock()
		seen[strings.Split(r.URL.Path, "/")[2]] += user
		mu.Unlock()
		w.WriteHeader(http.StatusNotFound)
	}
	mirror, other, origin := plainServer(t, serve), plainServer(t, serve), plainServer(t, serve)
	cfg := registry.Config{Clock: &imagetest.Clock{}, Auth: secretf(`{"auths":{%q:{"auth":"bWlycm9yOng="},%q:{"auth":"b3JpZ2luOng="},"app.test":{"auth":"YXNrZWQ6eA=="}}}`, mirror, origin)}
	_, err := open(t, client(t, cfg, rule("", mirror, other, origin)), "app.test/team/app").Manifest(t.Context(), "v1")
	if !errors.Is(err, registry.ErrNotFound) {
		t.Fatal(err)
	}
	if seen["m1"] != "mirror" || seen["m2"] != "" || seen["origin"] != "origin" {
		t.Errorf("credentials: %v", seen)
	}
}

// Plain HTTP is allowed for the names under the rule and for no other.
func TestInsecureByName(t *testing.T) {
	s := imagetest.Serve(t)
	imagetest.Push(t, s, s.Host+"/team/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "x")))
	imagetest.Push(t, s, s.Host+"/other/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "x")))
	cl := client(t, registry.Config{Clock: s.Clock}, "[[registry]]\nlocation='"+s.Host+"/team'\ninsecure=true")
	if _, err := open(t, cl, s.Host+"/team/app").Manifest(t.Context(), "v1"); err != nil {
		t.Errorf("under the rule: %v", err)
	}
	if _, err := open(t, cl, s.Host+"/other/app").Manifest(t.Context(), "v1"); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("beside the rule: %v", err)
	}
	if _, err := open(t, cl, s.Host+"/team/app").PushBlob(t.Context(), strings.NewReader("x")); err != nil {
		t.Errorf("a push under the rule: %v", err)
	}
}

// A mirror that lists no referrers hides none: signatures are found at the origin.
func TestMirrorsHideNoReferrers(t *testing.T) {
	m := newMirrored(t, "")
	d := digest.FromString("subject")
	list := func(s *imagetest.Server, name, entries string) {
		s.Replace("/v2/"+name+"/team/app/referrers/"+d.String(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, entries)
		})
	}
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3}`, ocispec.MediaTypeImageManifest, d)
	list(m.one, "m1", "")
	list(m.origin, "origin", entry)
	if got, err := m.repo.Referrers(t.Context(), d); err != nil || len(got) != 1 {
		t.Errorf("%d referrers, %v", len(got), err)
	}
	list(m.origin, "origin", "")
	if got, err := m.repo.Referrers(t.Context(), d); err != nil || len(got) != 0 {
		t.Errorf("%d referrers, %v", len(got), err)
	}
	m.origin.Replace("/v2/origin/team/app/referrers/"+d.String(), status(http.StatusServiceUnavailable, ""))
	if got, err := m.repo.Referrers(t.Context(), d); err == nil {
		t.Errorf("%d referrers while the origin is away", len(got))
	}
}

// A mirror may know a tag and lack a blob behind it, from the first byte on.
func TestMirrorWithoutTheBlob(t *testing.T) {
	m := newMirrored(t, "")
	layer := imagetest.GzipLayer(t, imagetest.File("a", "x"))
	want := imagetest.Push(t, m.origin, m.origin.Host+"/origin/team/app:v1", nil, layer)
	found, err := m.repo.Manifest(t.Context(), want.Digest.String())
	imagetest.Must(t, err)
	image, err := found.Image()
	imagetest.Must(t, err)
	raw, err := registry.ReadBlob(t.Context(), m.repo, image.Config, registry.MaxManifest)
	if err != nil || int64(len(raw)) != image.Config.Size {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}
