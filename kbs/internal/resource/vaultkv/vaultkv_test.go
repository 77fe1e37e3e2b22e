package vaultkv_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/backendtest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/vaultkv"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault/vaulttest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func open(t *testing.T, s *vaulttest.Server) *vaultkv.Backend {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c, err := vault.New(vault.Config{
		Address: s.URL, RootCAs: roots, Auth: vault.AppRole("", s.RoleID, vaulttest.File(t, s.SecretID)), Now: time.Now,
		Pause: func(context.Context, time.Duration) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return vaultkv.New(c, "secret", "")
}

func TestContract(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Backend {
		return backendtest.Backend{Backend: open(t, vaulttest.Start(t))}
	})
}

// Secrets of other authors are read as the field reads them.
func TestForeignSecrets(t *testing.T) {
	s := vaulttest.Start(t)
	b := open(t, s)
	for path, tt := range map[string]struct {
		data map[string]any
		want string
	}{
		"a/b/text":    {map[string]any{"value": "pa55word"}, "pa55word"},
		"a/b/base64":  {map[string]any{"value": "AAEC", "encoding": "base64"}, "\x00\x01\x02"},
		"a/b/numbers": {map[string]any{"value": []int{104, 105}}, "hi"},
		"a/b/object":  {map[string]any{"value": map[string]any{"k": []any{1, "x"}}}, `{"k":[1,"x"]}`},
		"a/b/large":   {map[string]any{"value": []int{1, 256}}, "[1,256]"},
	} {
		s.PutKV(path, tt.data)
		item, err := b.Get(t.Context(), backendtest.Path(t, path), 0)
		if err != nil || string(item.Value.Reveal()) != tt.want {
			t.Errorf("%s: %q, %v; want %q", path, item.Value.Reveal(), err, tt.want)
		}
	}
	s.PutKV("a/b/spoilt", map[string]any{"value": "?", "encoding": "base64"})
	s.PutKV("a/b/other", map[string]any{"password": "x"})
	s.PutKV("a/b/.hidden", map[string]any{"value": "x"})
	s.PutKV("a/b/c/deeper", map[string]any{"value": "x"})
	if _, err := b.Get(t.Context(), backendtest.Path(t, "a/b/spoilt"), 0); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("spoilt base64: %v", err)
	}
	if _, err := b.Get(t.Context(), backendtest.Path(t, "a/b/other"), 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a secret without the member: %v", err)
	}
}

// A Vault that is away, sealed or shut is not an absent resource.
func TestTroubles(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"sealed":    func(w http.ResponseWriter) { vaulttest.Refuse(w, http.StatusServiceUnavailable, "Vault is sealed") },
		"too many":  func(w http.ResponseWriter) { vaulttest.Refuse(w, http.StatusTooManyRequests, "rate limit") },
		"forbidden": func(w http.ResponseWriter) { vaulttest.Refuse(w, http.StatusForbidden, "permission denied") },
		"nonsense":  func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
	} {
		s := vaulttest.Start(t)
		b := open(t, s)
		s.Lock()
		s.Mood = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/secret/data/a/b/c" {
				return false
			}
			answer(w)
			return true
		}
		s.Unlock()
		_, err := b.Get(t.Context(), backendtest.Path(t, "a/b/c"), 0)
		if fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		_, err = b.Apply(t.Context(), resource.Change{Op: resource.OpPut, Path: backendtest.Path(t, "a/b/c"), Want: -1, Value: secret.Copy([]byte("x"))})
		if fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("%s: put: %v", name, err)
		}
	}
}
