package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

const largeBlob = 40 << 20

// spreading serves a large blob to a client for which every read takes long, so
// that it tries more connections.
type spreading struct {
	*imagetest.Pieces
	server *imagetest.Server
	repo   *registry.Repository
	desc   ocispec.Descriptor
}

func newSpreading(t *testing.T, change ...func(*registry.Config)) *spreading {
	t.Helper()
	s := imagetest.Serve(t)
	s.Clock.Crawl(100 * time.Millisecond)
	cfg := s.Config()
	for _, c := range change {
		c(&cfg)
	}
	p := &imagetest.Pieces{Blob: make([]byte, largeBlob)}
	_, _ = rand.Read(p.Blob)
	repo, _ := imagetest.Repository(t, cfg, s.Host+"/app")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(p.Blob), Size: largeBlob}
	s.Replace("/v2/app/blobs/"+desc.Digest.String(), standStill(s.Clock, p))
	return &spreading{Pieces: p, server: s, repo: repo, desc: desc}
}

// standStill stops the clock when the first piece is asked for, so that nothing
// changes the number of connections any more.
func standStill(clock *imagetest.Clock, p *imagetest.Pieces) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			clock.Crawl(0)
		}
		p.ServeHTTP(w, r)
	}
}

// read reads the blob by even steps.
func (s *spreading) read(ctx context.Context) error {
	rc, err := s.repo.Blob(ctx, s.desc)
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }()
	h := digest.SHA256.Digester()
	_, err = io.CopyBuffer(h.Hash(), struct{ io.Reader }{rc}, make([]byte, 256<<10))
	if err == nil && h.Digest() != s.desc.Digest {
		err = errors.New("these are not the bytes")
	}
	return err
}

func TestLargeBlobOverSeveralConnections(t *testing.T) {
	s := newSpreading(t)
	imagetest.Must(t, s.read(t.Context()))
	if n := s.Connections(); n < 2 || n > 5 {
		t.Errorf("%d connections", n)
	}
	var next int64 = -1
	asked := s.Asked()
	slices.SortFunc(asked, func(a, b string) int { return int(start(t, a) - start(t, b)) })
	for _, r := range asked {
		var first, last int64
		if _, err := fmt.Sscanf(r, "bytes=%d-%d", &first, &last); err != nil || last-first >= 512<<10 && last != largeBlob-1 {
			t.Errorf("range %s, %v", r, err)
		}
		if next >= 0 && first > next {
			t.Errorf("a gap before %s", r)
		}
		next = last + 1
	}
	if next != largeBlob {
		t.Errorf("ranges end at %d", next)
	}
}

func start(t *testing.T, r string) (first int64) {
	t.Helper()
	_, err := fmt.Sscanf(r, "bytes=%d-", &first)
	imagetest.Must(t, err)
	return first
}

func TestOneConnectionWithoutAWindow(t *testing.T) {
	s := newSpreading(t, func(c *registry.Config) { c.Window = -1 })
	imagetest.Must(t, s.read(t.Context()))
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("ranges %q", asked)
	}
}

// What a registry does to pieces costs the blob nothing: it comes over one
// connection then.
func TestPiecesThatAreNotWhatWasAskedFor(t *testing.T) {
	answer := func(code int, contentRange string, body []byte) func(http.ResponseWriter) bool {
		return func(w http.ResponseWriter) bool {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(code)
			_, _ = w.Write(body)
			return true
		}
	}
	piece := make([]byte, 512<<10)
	tests := map[string]func(first, last int64, w http.ResponseWriter) bool{
		"ranges are ignored": func(_, _ int64, w http.ResponseWriter) bool { return answer(200, "", piece)(w) },
		"another range": func(first, last int64, w http.ResponseWriter) bool {
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first+1, last+1, largeBlob), piece)(w)
		},
		"an overlapping range": func(first, last int64, w http.ResponseWriter) bool {
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first-512, last-512, largeBlob), piece)(w)
		},
		"a shorter range": func(first, last int64, w http.ResponseWriter) bool {
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first, last-1, largeBlob), piece[1:])(w)
		},
		"a longer range": func(first, last int64, w http.ResponseWriter) bool {
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first, last+1, largeBlob), append(piece, 0))(w)
		},
		"another length": func(first, last int64, w http.ResponseWriter) bool {
			w.Header().Set("Content-Length", "17")
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first, last, largeBlob), piece[:17])(w)
		},
		"another size": func(first, last int64, w http.ResponseWriter) bool {
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first, last, largeBlob+1), piece)(w)
		},
		"another blob": func(first, last int64, w http.ResponseWriter) bool {
			w.Header().Set("Etag", `"two"`)
			return answer(206, fmt.Sprintf("bytes %d-%d/%d", first, last, largeBlob), piece)(w)
		},
		"no range":        func(_, _ int64, w http.ResponseWriter) bool { return answer(206, "", piece)(w) },
		"too many":        func(_, _ int64, w http.ResponseWriter) bool { return answer(429, "", nil)(w) },
		"unavailable":     func(_, _ int64, w http.ResponseWriter) bool { return answer(503, "", nil)(w) },
		"not satisfiable": func(_, _ int64, w http.ResponseWriter) bool { return answer(416, "", nil)(w) },
		"hung up on":      func(int64, int64, http.ResponseWriter) bool { panic(http.ErrAbortHandler) },
	}
	for name, mangle := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSpreading(t)
			s.Mangle = func(_ int, w http.ResponseWriter, r *http.Request) bool {
				var first, last int64
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
				return mangle(first, last, w)
			}
			imagetest.Must(t, s.read(t.Context()))
			if n := len(s.Asked()); n == 0 || n > 4 {
				t.Errorf("%d ranges were asked for", n)
			}
			if slept := s.server.Clock.Slept(); len(slept) > 0 {
				t.Errorf("waited %v", slept)
			}
		})
	}
}

// Bytes that are wrong are the digest's to find, wherever they came from.
func TestPiecesWithWrongBytes(t *testing.T) {
	s := newSpreading(t)
	wrong := slices.Clone(s.Blob)
	wrong[largeBlob-1] ^= 1
	s.Mangle = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(wrong))
		return true
	}
	err := s.read(t.Context())
	if _, ok := errors.AsType[*registry.DigestError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// A piece that breaks off or stalls is what a broken connection always is: the
// blob goes on where it stopped, after a wait.
func TestBrokenPieceResumes(t *testing.T) {
	for name, stall := range map[string]bool{"broken off": false, "stalled": true} {
		t.Run(name, func(t *testing.T) {
			s := newSpreading(t, func(c *registry.Config) { c.Retry.Stall = 300 * time.Millisecond })
			hit := make(chan string, 1)
			s.Mangle = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n != 5 {
					return false
				}
				w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+fmt.Sprint("/", largeBlob))
				w.Header().Set("Content-Length", fmt.Sprint(512<<10))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(s.Blob[start(t, r.Header.Get("Range")):][:1000])
				_ = http.NewResponseController(w).Flush()
				hit <- r.Header.Get("Range")
				if stall {
					<-r.Context().Done()
				}
				panic(http.ErrAbortHandler)
			}
			imagetest.Must(t, s.read(t.Context()))
			if len(hit) == 0 {
				t.Fatal("no piece broke")
			}
			if n := len(s.server.Clock.Slept()); n == 0 {
				t.Error("it went on without a wait")
			}
		})
	}
}

func TestPiecesAreCancelled(t *testing.T) {
	s := newSpreading(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.Mangle = func(n int, _ http.ResponseWriter, r *http.Request) bool {
		if n < 5 {
			return false
		}
		cancel()
		<-r.Context().Done()
		return true
	}
	if err := s.read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A mirror that dies while it serves pieces is left, in the middle of the blob.
func TestMirrorFailoverInMidPiece(t *testing.T) {
	m := newMirrored(t, "")
	m.one.Clock.Crawl(100 * time.Millisecond)
	blob := make([]byte, largeBlob)
	_, _ = rand.Read(blob)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: largeBlob}
	path := "/blobs/" + desc.Digest.String()
	dying := &imagetest.Pieces{Blob: blob, Mangle: func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n >= 6 {
			panic(http.ErrAbortHandler)
		}
		return false
	}}
	good := &imagetest.Pieces{Blob: blob}
	m.one.Replace("/v2/m1/team/app"+path, standStill(m.one.Clock, dying))
	m.two.Replace("/v2/m2/team/app"+path, good.ServeHTTP)
	s := &spreading{repo: m.repo, desc: desc}
	imagetest.Must(t, s.read(t.Context()))
	asked := good.Asked()
	if len(asked) == 0 || start(t, asked[0]) == 0 || !strings.HasSuffix(asked[0], fmt.Sprint("-", largeBlob-1)) {
		t.Errorf("the other mirror was asked for %.3q", asked)
	}
}

// Over HTTP/2 all requests would share one connection, which may be what is slow.
func TestLanesHaveConnectionsOfTheirOwn(t *testing.T) {
	p := &imagetest.Pieces{Blob: make([]byte, largeBlob)}
	protocols := make(chan string, 1000)
	clock := &imagetest.Clock{}
	clock.Crawl(100 * time.Millisecond)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			protocols <- r.Proto + r.Header.Get("Range")
			standStill(clock, p)(w, r)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs //nolint:forcetypeassert // httptest's
	repo, _ := imagetest.Repository(t, registry.Config{RootCAs: roots, Clock: clock}, strings.TrimPrefix(srv.URL, "https://")+"/app")
	s := &spreading{repo: repo, desc: ocispec.Descriptor{Digest: digest.FromBytes(p.Blob), Size: largeBlob}}
	imagetest.Must(t, s.read(t.Context()))
	srv.Close()
	if first := <-protocols; first != "HTTP/2.0" {
		t.Errorf("the blob was asked for by %s", first)
	}
	close(protocols) // the server is
	if second := <-protocols; !strings.HasPrefix(second, "HTTP/1.1bytes=") || p.Connections() < 2 {
		t.Errorf("then %s, over %d connections", second, p.Connections())
	}
}

// Behind a redirect, pieces are asked for where the blob lies, without the
// registry's credential.
func TestPiecesBehindARedirect(t *testing.T) {
	p := &imagetest.Pieces{Blob: make([]byte, largeBlob)}
	clock := &imagetest.Clock{}
	clock.Crawl(100 * time.Millisecond)
	var leaked atomic.Bool
	var redirects atomic.Int32
	elsewhere := plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		standStill(clock, p)(w, r)
	})
	host := plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			redirects.Add(1)
			http.Redirect(w, r, "http://"+elsewhere+"/signed?for=a-minute", http.StatusTemporaryRedirect)
		}
	})
	cfg := registry.Config{
		InsecureHTTPHosts: []string{host, elsewhere}, Clock: clock,
		Auth: secretf(`{"auths":{%q:{"auth":"bWlycm9yOng="}}}`, host),
	}
	repo, _ := imagetest.Repository(t, cfg, host+"/app")
	s := &spreading{repo: repo, desc: ocispec.Descriptor{Digest: digest.FromBytes(p.Blob), Size: largeBlob}}
	imagetest.Must(t, s.read(t.Context()))
	if p.Connections() < 2 || leaked.Load() || redirects.Load() > 2 {
		t.Errorf("%d connections, credential leaked: %v, %d redirects", p.Connections(), leaked.Load(), redirects.Load())
	}
}
