package pull_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Whoever signed a chart or a module did not sign something to run, even where its
// blobs can be read as an image's.
func TestArtifactsAreNoImages(t *testing.T) {
	w := newWorld(t)
	l := layers(t)
	for _, kind := range []string{"application/vnd.cncf.helm.config.v1+json", ocispec.MediaTypeEmptyJSON, ocispec.MediaTypeImageManifest, "", "application/octet-stream"} {
		ref := w.ref("chart:v1")
		repo, _ := imagetest.Repository(t, w.Config(), ref)
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
		m.Config = imagetest.Blob(t, repo, kind, imagetest.Config(t, l[:1]))
		m.Layers = []ocispec.Descriptor{imagetest.Blob(t, repo, l[0].MediaType, l[0].Blob)}
		imagetest.Manifest(t, repo, "v1", m)
		w.sign(ref)
		w.Forget()
		w.refused(ref, fault.ImageMalformed)
		if n := w.Requests("GET", "/blobs/"+m.Layers[0].Digest.String()); n != 0 {
			t.Errorf("%q: its layer was fetched", kind)
		}
		if _, err := ship.Encrypt(t.Context(), ref, w.ref("out:v1"), ship.EncryptOptions{KID: kid, KEK: w.kek, Registry: w.Config()}); !errors.Is(err, registry.ErrMalformed) {
			t.Errorf("%q: encrypted as an image: %v", kind, err)
		}
	}
}

// That an image with this config was accepted once says nothing about another
// manifest with the same config and the same layers.
func TestSameConfigInAnotherManifest(t *testing.T) {
	w := newWorld(t)
	ref := w.ref("app:v1")
	m := imagetest.Push(t, w.Server, ref, nil, layers(t)...)
	w.sign(ref)
	img := w.pull(ref)
	doc, err := m.Image()
	imagetest.Must(t, err)
	doc.Annotations = map[string]string{"by": "somebody else"}
	repo, _ := imagetest.Repository(t, w.Config(), ref)
	other := imagetest.Manifest(t, repo, "v1", *doc)
	w.Forget()
	w.refused(ref, fault.ImageUnsigned)
	w.refused(w.Host+"/signed/app@"+other.Digest.String(), fault.ImageUnsigned)
	if n := w.Requests("GET", "/blobs/"); n != 0 {
		t.Errorf("%d blobs were fetched", n)
	}
	if again := w.pull(w.Host + "/signed/app@" + img.Digest); again.Digest != img.Digest {
		t.Errorf("pulled %s", again.Digest)
	}
}

// Two tenants encrypted the same layer. Each gets it with his own key, at the same
// moment and from one store; neither gets the other's, whoever was first.
func TestSameLayerUnderTwoKeys(t *testing.T) {
	w := newWorld(t)
	l := imagetest.GzipLayer(t, imagetest.File("shared", "content"))
	imagetest.Push(t, w.Server, w.Host+"/plain/app:v1", nil, l)
	type tenant struct {
		ref    string
		puller *pull.Puller
	}
	var tenants [2]tenant
	for i := range tenants {
		id, kek := fmt.Sprintf("kbs:///tenant%d/image/kek", i), secret.Random(32)
		tenants[i].ref = w.ref(fmt.Sprintf("tenant%d:v1", i))
		_, err := ship.Encrypt(t.Context(), w.Host+"/plain/app:v1", tenants[i].ref, ship.EncryptOptions{KID: id, KEK: kek, Registry: w.Config()})
		imagetest.Must(t, err)
		w.sign(tenants[i].ref)
		config := w.config()
		config.Unwrapper = crypt.KEKs(func(_ context.Context, asked string) (secret.Bytes, error) {
			if asked != id {
				return secret.Bytes{}, errors.New("another tenant's")
			}
			return kek, nil
		})
		tenants[i].puller, err = pull.New(config)
		imagetest.Must(t, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		for i := range tenants {
			wg.Go(func() {
				img, err := tenants[i].puller.Pull(t.Context(), tenants[i].ref)
				if err != nil {
					t.Errorf("his own: %v", cause(err))
					return
				}
				imagetest.Must(t, img.Release())
			})
			wg.Go(func() {
				if img, err := tenants[i].puller.Pull(t.Context(), tenants[1-i].ref); fault.CodeOf(err) != fault.ImageKey {
					t.Errorf("the other's: %v", err)
					if err == nil {
						_ = img.Release()
					}
				}
			})
		}
	}
	wg.Wait()
	names := map[string]bool{}
	for _, info := range w.store.Layers() {
		names[info.Name] = true
	}
	if len(names) != 2 {
		t.Errorf("the store has %v", names)
	}
}

// Credentials, as mirrors, may change between two pulls of one agent.
func TestCredentialsAreReadAnew(t *testing.T) {
	w := newWorld(t)
	ref := w.ref("app:v1")
	imagetest.Push(t, w.Server, ref, nil, layers(t)...)
	w.sign(ref)
	var mu sync.Mutex
	user := ""
	gate := registryGate(t, w.Server, func(r *http.Request) bool {
		name, _, _ := r.BasicAuth()
		return name == "rotated"
	})
	config := w.config()
	config.Client = func(context.Context) (*registry.Client, error) {
		mu.Lock()
		defer mu.Unlock()
		c := registry.Config{InsecureHTTPHosts: []string{gate}, Clock: w.Clock}
		if user != "" {
			c.Auth = secret.New(fmt.Appendf(nil, `{"auths":{%q:{"username":%q,"password":%q}}}`, gate, user, digest.FromString(user).Encoded()))
		}
		return registry.NewClient(c)
	}
	w.policy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`
	var err error
	w.puller, err = pull.New(config)
	imagetest.Must(t, err)
	w.refused(gate+"/signed/app:v1", fault.ImageUnavailable)
	user = "old"
	w.refused(gate+"/signed/app:v1", fault.ImageUnavailable)
	user = "rotated"
	w.pull(gate + "/signed/app:v1")
}

// registryGate is another way to a registry, which lets in whom admit admits.
func registryGate(t *testing.T, s *imagetest.Server, admit func(*http.Request) bool) string {
	t.Helper()
	target, err := url.Parse("http://" + s.Host)
	imagetest.Must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !admit(r) {
			rw.Header().Set("WWW-Authenticate", `Basic realm="gate"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}
