package main

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A registry serves one image on loopback, as plainly as that can be done: its
// files from the page cache by sendfile, so that the cores are left to who pulls.
type registry struct {
	host   string
	server *http.Server
	done   chan error

	mu    sync.Mutex
	image *image
	slow  bool
}

// slowRate is what a connection gets where connections are slow, in bytes per
// second: what many registries give one.
const slowRate = 20e6

func serve() (*registry, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registry{host: ln.Addr().String(), done: make(chan error, 1)}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { r.done <- r.server.Serve(ln) }()
	return r, nil
}

func (r *registry) close() error {
	err := r.server.Close()
	if served := <-r.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func (r *registry) offer(i *image, slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.image, r.slow = i, slow
}

// slowly passes an answer on at slowRate.
type slowly struct {
	http.ResponseWriter
	since time.Time
	sent  int
}

func (s *slowly) Write(p []byte) (int, error) {
	due := s.since.Add(time.Duration(float64(s.sent+len(p)) / slowRate * float64(time.Second)))
	<-time.After(time.Until(due))
	n, err := s.ResponseWriter.Write(p)
	s.sent += n
	return n, err
}

// ServeHTTP answers what a puller asks by the distribution specification.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	image := r.image
	if r.slow {
		w = &slowly{ResponseWriter: w, since: time.Now()}
	}
	r.mu.Unlock()
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	dir, name := req.URL.Path, ""
	if i := strings.LastIndex(dir, "/"); i >= 0 {
		dir, name = dir[:i], dir[i+1:]
	}
	switch {
	case req.URL.Path == "/v2/":
	case strings.HasSuffix(dir, "/manifests") && (name == imageTag || name == image.digest.String()):
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", image.digest.String())
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(image.manifest))
	case strings.HasSuffix(dir, "/blobs") && name == digest.FromBytes(image.config).String():
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(image.config))
	case strings.HasSuffix(dir, "/blobs") && image.files[digest.Digest(name)] != "":
		f, err := os.Open(image.files[digest.Digest(name)])
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer func() { _ = f.Close() }()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Docker-Content-Digest", name)
		http.ServeContent(w, req, "", time.Time{}, f)
	default:
		http.NotFound(w, req)
	}
}
