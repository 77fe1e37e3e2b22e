package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/archive"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
)

func TestOpen(t *testing.T) {
	asked := 0
	served := "the package"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/p.deb" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, served)
	}))
	defer s.Close()
	sum := sha256.Sum256([]byte("the package"))
	p := lock.Package{Name: "p", Version: "1", Size: 11, SHA256: hex.EncodeToString(sum[:]), URL: s.URL + "/p.deb"}
	c := &Cache{Dir: filepath.Join(t.TempDir(), "cache"), Client: s.Client()}

	// What is not the pinned package leaves nothing behind.
	for _, served = range []string{"another one", "the", "the package and more"} {
		if _, err := c.Open(t.Context(), p); !errors.Is(err, archive.ErrHash) {
			t.Errorf("served %q: %v", served, err)
		}
		if left, err := os.ReadDir(c.Dir); err != nil || len(left) > 0 {
			t.Errorf("served %q: left %v, %v", served, left, err)
		}
	}
	served = "the package"
	for range 2 {
		f, err := c.Open(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil || string(raw) != served {
			t.Errorf("%q, %v", raw, err)
		}
	}
	if asked != 4 {
		t.Errorf("asked %d times, want 4: what is in the cache is not fetched", asked)
	}
	// What was changed in the cache is not used.
	if err := os.WriteFile(filepath.Join(c.Dir, p.SHA256+".deb"), []byte("changed now"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), p); !errors.Is(err, archive.ErrHash) {
		t.Errorf("changed in the cache: %v", err)
	}

	gone := p
	gone.URL, gone.SHA256 = s.URL+"/older.deb", hex.EncodeToString(make([]byte, 32))
	if _, err := c.Open(t.Context(), gone); !errors.Is(err, ErrGone) {
		t.Errorf("a package that is there no more: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Open(ended, gone); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}
