package jwks_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
)

// A publisher that misbehaves yields no key, in bounded time and memory, and is
// not asked again at once.
func TestHostilePublishers(t *testing.T) {
	set := encode(t, public("1", key(t)))
	for name, serve := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, endless{})
		},
		"slow head": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"slow body": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(set[:10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"redirect loop": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) },
		"redirect to a file": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		},
		"redirect into the clear": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://192.0.2.1/jwks.json")
			w.WriteHeader(http.StatusFound)
		},
		"discovery of a file":      discovery("file:///etc/passwd"),
		"discovery into the clear": discovery("http://192.0.2.1/jwks.json"),
		"discovery of itself": func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, `{"jwks_uri":"http://%s%s"}`, r.Host, r.URL.Path)
		},
		"html":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot); _, _ = w.Write(set) },
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(set)
		},
		"deep": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(`{"keys":[`, 50_000))
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				serve(w, r)
			}))
			defer srv.Close()
			c := &clock{}
			s := open(t, srv.URL, &http.Client{Timeout: 300 * time.Millisecond, CheckRedirect: jwks.CheckRedirect}, c)
			start := time.Now()
			if _, err := s.Find(t.Context(), "1"); err == nil || errors.Is(err, jwks.ErrNoKey) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			before := asked.Load()
			for range 20 {
				if _, err := s.Find(t.Context(), "other"); err == nil {
					t.Error("a key out of nothing")
				}
			}
			if asked.Load() != before || before > 10 {
				t.Errorf("asked %d times, then %d", before, asked.Load())
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func discovery(uri string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/.well-known/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = fmt.Fprintf(w, `{"jwks_uri":%q}`, uri)
	}
}
