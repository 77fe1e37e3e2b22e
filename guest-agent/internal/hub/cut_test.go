package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// manner is how a server ends at a request.
type manner int

const (
	unheard manner = iota // the connection is gone before anything was done
	untold                // it was done, and nobody is told
	half                  // half of the answer arrives
	silent                // nothing arrives, and the connection stays: the network is gone
)

// cutting is a server that ends at one of its requests, and is not there for
// those that follow.
type cutting struct {
	next http.Handler
	gone chan struct{} // closed at the end of the test

	mu   sync.Mutex
	seen int // requests since it was armed
	at   int // the last one, from 1; 0 for a server that lives
	how  manner
}

// arm lets it end at a request from now on; 0 lets it live.
func (c *cutting) arm(at int, how manner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.at, c.how = 0, at, how
}

func (c *cutting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *cutting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.seen++
	left, how := c.at-c.seen, c.how
	lives := c.at == 0
	c.mu.Unlock()
	if lives || left > 0 {
		c.next.ServeHTTP(w, r)
		return
	}
	if left == 0 && (how == untold || how == half) {
		rec := httptest.NewRecorder()
		c.next.ServeHTTP(rec, r)
		if how == half {
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			body := rec.Body.Bytes()
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
		}
	}
	if how == silent {
		select {
		case <-c.gone:
		case <-r.Context().Done():
		}
	}
	panic(http.ErrAbortHandler) // hangs up
}

// impatient does not wait for a registry that is no more.
func impatient(c *Config) { c.Registry.Retry = registry.Retry{Attempts: 2, Base: time.Millisecond} }

// Wherever the broker or the registry ends during the start of a container, in
// whichever manner, the caller gets a code and a ticket, nothing is mounted or
// kept, and the same call succeeds once they are back.
func TestServersKilledAnywhere(t *testing.T) {
	w := newWorld(t, impatient)
	for name, server := range map[string]*cutting{"broker": w.broker.cut, "registry": w.registry.cut} {
		server.arm(0, unheard)
		w.open(impatient)
		if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); err != nil {
			t.Fatal(err)
		}
		requests := server.count()
		if requests < 5 {
			t.Fatalf("the %s was asked %d times", name, requests)
		}
		for at := 1; at <= requests; at++ {
			for _, how := range mannersAt(name, at, requests) {
				t.Run(fmt.Sprintf("%s, request %d of %d, manner %d", name, at, requests, how), func(t *testing.T) {
					w.killed(t, server, at, how)
				})
			}
		}
	}
}

// mannersAt chooses: all of them for the broker's few requests, but for its first,
// which clients repeat for two seconds, and for the registry's many, one each.
func mannersAt(server string, at, requests int) []manner {
	switch {
	case server == "broker" && at > 1:
		return []manner{unheard, untold, half, silent}
	case server == "broker":
		return []manner{half}
	case at%8 == 0 || at == requests:
		return []manner{silent}
	}
	return []manner{manner(at) % silent}
}

func (w *world) killed(t *testing.T, server *cutting, at int, how manner) {
	w.open(impatient)
	bundle := filepath.Join(t.TempDir(), "container")
	before := files(w.images)
	server.arm(at, how)
	defer server.arm(0, unheard)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if how == silent { // the runtime's patience ends
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, 500*time.Millisecond)
		defer stop()
	}
	_, err := w.hub.PullImage(ctx, w.ref, bundle)
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Ticket == "" || !slices.Contains([]fault.Code{fault.Unavailable, fault.ImageUnavailable}, f.Code) {
		t.Fatalf("refused with %v", err)
	}
	w.nothingIsLeft(t, bundle, before)
	server.arm(0, unheard)
	img, err := w.hub.PullImage(t.Context(), w.ref, bundle)
	if err != nil {
		t.Fatalf("once more: %v", err)
	}
	if _, err := os.Stat(filepath.Join(img.Rootfs, fmt.Sprintf("layer-%d", layers-1))); err != nil {
		t.Error(err)
	}
	if err := w.hub.ReleaseImage(t.Context(), bundle); err != nil {
		t.Error(err)
	}
	w.nothingIsLeft(t, bundle, before)
}

// nothingIsLeft looks for mounts, and for files that were not there before and
// that the store does not collect.
func (w *world) nothingIsLeft(t *testing.T, bundle string, before []string) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), bundle) {
		t.Errorf("mounted: %s", raw)
	}
	if _, err := w.hub.images.Load().store.GC(); err != nil {
		t.Error(err)
	}
	if left := append(files(bundle), files(w.images)...); !slices.Equal(left, before) {
		t.Errorf("left: %v, before: %v", left, before)
	}
}

// files lists what is below a directory and is none.
func files(dir string) (all []string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}
