package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func TestPushAndResolve(t *testing.T) {
	ctx := t.Context()
	s := imagetest.Serve(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "hello"))
	m := imagetest.Push(t, s, s.Host+"/team/app:v1", nil, layer)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/team/app")
	for _, version := range []string{"v1", m.Digest.String()} {
		res, err := registry.Resolve(ctx, repo, version, registry.Native())
		if err != nil || res.Manifest.Digest != m.Digest || res.Root.Digest != m.Digest {
			t.Fatalf("%s: %+v, %v", version, res, err)
		}
		b, err := registry.ReadBlob(ctx, repo, res.Image.Layers[0], 1<<20)
		if err != nil || !bytes.Equal(b, layer.Blob) {
			t.Fatalf("layer: %v", err)
		}
	}
	_, err := repo.Manifest(ctx, "absent")
	if !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("absent tag: %v", err)
	}
}

func TestResolveIndex(t *testing.T) {
	ctx := t.Context()
	s := imagetest.Serve(t)
	ref := s.Host + "/team/multi"
	m := imagetest.Push(t, s, ref+":one", nil, imagetest.GzipLayer(t, imagetest.File("a", "x")))
	repo, _ := imagetest.Repository(t, s.Config(), ref)
	push := func(tag string, desc ocispec.Descriptor) registry.Manifest {
		desc.Platform = &ocispec.Platform{OS: "linux", Architecture: registry.Native().Architecture}
		raw := imagetest.JSON(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc}})
		x, err := repo.PushManifest(ctx, tag, ocispec.MediaTypeImageIndex, raw)
		imagetest.Must(t, err)
		return x
	}
	index := push("multi", m.Descriptor())
	res, err := registry.Resolve(ctx, repo, "multi", registry.Native())
	if err != nil || res.Root.Digest != index.Digest || res.Manifest.Digest != m.Digest {
		t.Fatalf("got %+v, %v", res, err)
	}
	push("nested", index.Descriptor())
	if _, err := registry.Resolve(ctx, repo, "nested", registry.Native()); !errors.Is(err, registry.ErrMalformed) {
		t.Fatalf("an index in an index: %v", err)
	}
	wrong := m.Descriptor()
	wrong.Size++
	push("wrong-size", wrong)
	if _, err := registry.Resolve(ctx, repo, "wrong-size", registry.Native()); !errors.Is(err, registry.ErrMalformed) {
		t.Fatalf("an index with a wrong size: %v", err)
	}
}

func TestForeignManifests(t *testing.T) {
	s := imagetest.Serve(t)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/app")
	d := digest.FromString("what was asked for")
	s.Replace("/v2/app/manifests/"+d.String(), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_, _ = io.WriteString(w, `{"schemaVersion":2,"layers":[]}`)
	})
	_, err := repo.Manifest(t.Context(), d.String())
	if _, ok := errors.AsType[*registry.DigestError](err); !ok {
		t.Errorf("another manifest than the one asked for: %v", err)
	}
	s.Replace("/v2/app/manifests/huge", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_, _ = w.Write(bytes.Repeat([]byte(" "), registry.MaxManifest+1))
	})
	if _, err := repo.Manifest(t.Context(), "huge"); !errors.Is(err, registry.ErrMalformed) {
		t.Errorf("a huge manifest: %v", err)
	}
}

// Loopback and private addresses get no plain HTTP by themselves.
func TestPlainHTTPMustBeNamed(t *testing.T) {
	s := imagetest.Serve(t)
	imagetest.Push(t, s, s.Host+"/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("a", "x")))
	s.Forget()
	for _, c := range []registry.Config{{}, {InsecureHTTPHosts: []string{"127.0.0.1", "localhost"}}} {
		repo, _ := imagetest.Repository(t, c, s.Host+"/app:v1")
		if _, err := repo.Manifest(t.Context(), "v1"); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
			t.Errorf("hosts %v: %v", c.InsecureHTTPHosts, err)
		}
	}
	if n := s.Requests(); n != 0 {
		t.Errorf("%d requests went out over plain HTTP", n)
	}
}

func TestRootCAs(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_, _ = io.WriteString(w, `{"schemaVersion":2,"layers":[]}`)
	}))
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "https://") + "/app:v1"
	repo, _ := imagetest.Repository(t, registry.Config{}, ref)
	if _, err := repo.Manifest(t.Context(), "v1"); err == nil {
		t.Error("an unknown CA was trusted")
	}
	pool := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	repo, _ = imagetest.Repository(t, registry.Config{RootCAs: pool}, ref)
	if _, err := repo.Manifest(t.Context(), "v1"); err != nil {
		t.Errorf("the configured CA was not trusted: %v", err)
	}
}

func authFile(key, user, password string) secret.Bytes {
	return secret.New(fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, key, base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
}

// A registry may send a client elsewhere for a blob. The credential must not
// go along.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	password := base64.RawURLEncoding.EncodeToString(secret.Random(12).Reveal())
	body := "blob"
	desc := ocispec.Descriptor{Digest: digest.FromString(body), Size: int64(len(body))}
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			var leaked string
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				leaked = r.Header.Get("Authorization")
				_, _ = io.WriteString(w, body)
			}))
			defer elsewhere.Close()
			seen := ""
			var home *httptest.Server
			home = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				user, pass, basic := r.BasicAuth()
				switch {
				case r.URL.Path == "/token" && basic && user == "me" && pass == password:
					_ = json.NewEncoder(w).Encode(map[string]string{"token": "t0ken"})
				case r.Header.Get("Authorization") == "" || r.URL.Path == "/token":
					challenge := scheme + ` realm="` + home.URL + `/token",service="s"`
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/blobs/"):
					seen = r.Header.Get("Authorization")
					http.Redirect(w, r, elsewhere.URL+"/x", http.StatusTemporaryRedirect)
				}
			}))
			defer home.Close()
			host, other := strings.TrimPrefix(home.URL, "http://"), strings.TrimPrefix(elsewhere.URL, "http://")
			repo, _ := imagetest.Repository(t, registry.Config{InsecureHTTPHosts: []string{host, other}, Auth: authFile(host, "me", password)}, host+"/team/app")
			got, err := registry.ReadBlob(t.Context(), repo, desc, 100)
			if err != nil || string(got) != body {
				t.Fatalf("%q, %v", got, err)
			}
			if !strings.HasPrefix(seen, scheme+" ") {
				t.Errorf("the registry itself got %q", seen)
			}
			if leaked != "" {
				t.Error("the credential followed the redirect")
			}
			// Over plain HTTP the other host must be named too.
			repo, _ = imagetest.Repository(t, registry.Config{InsecureHTTPHosts: []string{host}, Auth: authFile(host, "me", password)}, host+"/team/app")
			if _, err := registry.ReadBlob(t.Context(), repo, desc, 100); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
				t.Errorf("a redirect to plain HTTP: %v", err)
			}
		})
	}
}

func TestBadAuthFiles(t *testing.T) {
	tests := []struct{ name, doc, secret string }{
		{"not JSON", `hunter2`, "hunter2"},
		{"helper", `{"credHelpers":{"ghcr.io":"gh"}}`, ""},
		{"store", `{"credsStore":"desktop"}`, ""},
		{"not base64", `{"auths":{"ghcr.io":{"auth":"hunter2!"}}}`, "hunter2"},
		{"no colon", `{"auths":{"ghcr.io":{"auth":"aHVudGVyMg=="}}}`, "hunter2"},
		{"nothing", `{"auths":{"ghcr.io":{}}}`, ""},
	}
	for _, tt := range tests {
		_, err := registry.NewClient(registry.Config{Auth: secret.Copy([]byte(tt.doc))})
		if err == nil {
			t.Errorf("%s was accepted", tt.name)
		} else if tt.secret != "" && strings.Contains(err.Error(), tt.secret) {
			t.Errorf("%s: the error quotes the file", tt.name)
		}
	}
}

func TestLayout(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := registry.OpenLayout(dir); err == nil {
		t.Fatal("opened a layout that is not there")
	}
	l, err := registry.CreateLayout(dir)
	imagetest.Must(t, err)
	config := imagetest.Blob(t, l, ocispec.MediaTypeImageConfig, []byte("{}"))
	doc := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{}}
	m := imagetest.Manifest(t, l, "v1", doc)
	doc.Annotations = map[string]string{"a": "b"}
	m2 := imagetest.Manifest(t, l, "v1", doc) // moves the tag

	again, err := registry.OpenLayout(dir)
	imagetest.Must(t, err)
	if got, err := again.Manifest(ctx, "v1"); err != nil || got.Digest != m2.Digest {
		t.Errorf("tag: %v, %v", got.Digest, err)
	}
	if got, err := again.Manifest(ctx, m.Digest.String()); err != nil || got.Digest != m.Digest {
		t.Errorf("digest: %v, %v", got.Digest, err)
	}
	if _, err := again.Manifest(ctx, "absent"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	if _, err := again.Manifest(ctx, "../../etc:passwd"); !errors.Is(err, registry.ErrMalformed) {
		t.Errorf("a path for a digest: %v", err)
	}
	if b, err := registry.ReadBlob(ctx, again, config, 10); err != nil || string(b) != "{}" {
		t.Errorf("blob: %q, %v", b, err)
	}
}

func TestParseLayout(t *testing.T) {
	tests := []struct {
		in, dir, tag string
		ok           bool
	}{
		{"oci:dir", "dir", "latest", true}, {"oci:/a/b:v1", "/a/b", "v1", true}, {"oci:/a:b/c", "/a:b/c", "latest", true}, {"alpine", "", "", false},
	}
	for _, tt := range tests {
		if dir, tag, ok := registry.ParseLayout(tt.in); dir != tt.dir || tag != tt.tag || ok != tt.ok {
			t.Errorf("%q: %q %q %v", tt.in, dir, tag, ok)
		}
	}
}
