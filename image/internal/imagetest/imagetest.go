// Package imagetest builds images and serves them from a real registry on
// loopback, with a hook to tamper with the answers. Only tests import it.
package imagetest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// Server is an in-process registry. Its host must be listed in
// InsecureHTTPHosts; [Server.Config] does that.
type Server struct {
	Host  string
	Clock *Clock

	mu      sync.Mutex
	log     []string
	replace map[string]http.HandlerFunc // by URL path
	refuse  func(*http.Request) int
}

// Serve starts a registry for the length of the test. It does not list referrers by
// itself, unless an option says so.
func Serve(t testing.TB, options ...ggcr.Option) *Server {
	t.Helper()
	s := &Server{Clock: &Clock{}, replace: map[string]http.HandlerFunc{}}
	inner := ggcr.New(append(options, ggcr.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))...)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.log = append(s.log, r.Method+" "+r.URL.Path)
		h, status := s.replace[r.URL.Path], 0
		if s.refuse != nil {
			status = s.refuse(r)
		}
		s.mu.Unlock()
		if status != 0 {
			w.WriteHeader(status)
			return
		}
		if h != nil && r.Method == http.MethodGet {
			h(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.Host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

// Config reaches the server.
func (s *Server) Config() registry.Config {
	return registry.Config{InsecureHTTPHosts: []string{s.Host}, Clock: s.Clock}
}

// Requests returns how many requests had a path with all of the parts.
func (s *Server) Requests(parts ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, line := range s.log {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			n++
		}
	}
	return n
}

// Forget empties the request log.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

// Replace answers GET requests for the path with h from now on; nil stops it.
func (s *Server) Replace(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace[path] = h
}

// Refuse answers requests for which it gives a status with that, from now on; nil
// stops it.
func (s *Server) Refuse(status func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

// Body is a handler that serves these bytes.
func Body(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(b)
	}
}

// Entry is one entry of a layer.
type Entry struct {
	tar.Header
	Body string
}

// File is a regular file of mode 0644.
func File(name, body string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, Body: body}
}

// Dir is a directory of mode 0755.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}}
}

// Tar writes an archive. Times that are not set are a fixed one.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.Body))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		Must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, e.Body)
		Must(t, err)
	}
	Must(t, w.Close())
	return buf.Bytes()
}

// Gzip compresses.
func Gzip(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(b)
	Must(t, err)
	Must(t, w.Close())
	return buf.Bytes()
}

// Zstd compresses.
func Zstd(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	Must(t, err)
	defer func() { _ = w.Close() }()
	return w.EncodeAll(b, nil)
}

// Must ends the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Layer is one layer of an image that is built.
type Layer struct {
	MediaType string // default: gzip
	Blob      []byte
	DiffID    digest.Digest // default: of what Blob expands to is the caller's to give
}

// GzipLayer makes a gzip layer of the entries.
func GzipLayer(t testing.TB, entries ...Entry) Layer {
	t.Helper()
	raw := Tar(t, entries...)
	return Layer{MediaType: ocispec.MediaTypeImageLayerGzip, Blob: Gzip(t, raw), DiffID: digest.FromBytes(raw)}
}

// Config is a linux image config for the layers.
func Config(t testing.TB, layers []Layer) []byte {
	t.Helper()
	var c ocispec.Image
	c.OS, c.Architecture = "linux", registry.Native().Architecture
	c.Config.Cmd = []string{"/bin/true"}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.DiffID)
	}
	return JSON(t, c)
}

// JSON marshals.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	Must(t, err)
	return b
}

// Repository opens the repository of ref.
func Repository(t testing.TB, c registry.Config, ref string) (*registry.Repository, registry.Reference) {
	t.Helper()
	client, err := registry.NewClient(c)
	Must(t, err)
	r, err := registry.ParseReference(ref)
	Must(t, err)
	repo, err := client.Repository(r)
	Must(t, err)
	return repo, r
}

// Push pushes an image of the layers with the config (nil: [Config]) and
// returns its manifest.
func Push(t testing.TB, s *Server, ref string, config []byte, layers ...Layer) registry.Manifest {
	t.Helper()
	repo, r := Repository(t, s.Config(), ref)
	if config == nil {
		config = Config(t, layers)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = Blob(t, repo, ocispec.MediaTypeImageConfig, config)
	for _, l := range layers {
		m.Layers = append(m.Layers, Blob(t, repo, l.MediaType, l.Blob))
	}
	return Manifest(t, repo, r.Tag, m)
}

// Blob pushes a blob.
func Blob(t testing.TB, repo registry.Sink, mediaType string, b []byte) ocispec.Descriptor {
	t.Helper()
	d, err := repo.PushBlob(context.Background(), bytes.NewReader(b))
	Must(t, err)
	d.MediaType = mediaType
	return d
}

// Manifest pushes a manifest document.
func Manifest(t testing.TB, repo registry.Sink, tag string, doc ocispec.Manifest) registry.Manifest {
	t.Helper()
	m, err := repo.PushManifest(context.Background(), tag, doc.MediaType, JSON(t, doc))
	Must(t, err)
	return m
}
