// Package kmstest has the services of package kms for tests: servers on loopback,
// over TLS, with real cryptography, that answer as the vendors' documents say
// and verify what proves a caller exactly. They share no code with the clients
// that they judge.
package kmstest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Names at every service. What is Denied is there, for somebody else.
const (
	Value  = "a value that nobody else has"
	Denied = "denied"
	Gone   = "gone"
)

// Service is the services of one vendor.
type Service struct {
	*httptest.Server
	Provider string
	// Settings are provider_settings that lead here, without a credential.
	Settings map[string]any
	// Resources are what the broker holds for guests, by URI: the credentials.
	Resources map[string]string
	// Files are the paths that the field knows credentials by.
	Files map[string]string
	// Secret makes the name of a secret of "app" (whose value is Value), Denied or
	// Gone; Key that of a key.
	Secret, Key func(name string) string

	mu     sync.Mutex
	mood   func(http.ResponseWriter, *http.Request) bool
	calls  int
	logins int
	now    func() time.Time
	key    cipher.AEAD
	used   map[string]bool // nonces
	tokens map[string]bool
}

// CredentialURI is where most services' credential is.
const CredentialURI = "kbs:///prod/kms/credential"

func newService(t testing.TB, provider string, handler func(*Service, http.ResponseWriter, *http.Request)) *Service {
	t.Helper()
	s := &Service{Provider: provider, now: time.Now, used: map[string]bool{}, tokens: map[string]bool{}}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	if s.key, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.calls++
		mood := s.mood
		s.mu.Unlock()
		if mood == nil || !mood(w, r) {
			handler(s, w, r)
		}
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients that do not trust it
	s.StartTLS()
	t.Cleanup(s.Close)
	s.Settings = map[string]any{"endpoint_url": s.URL, "root_certificates": s.Roots(), "credential": CredentialURI}
	return s
}

// Roots is the service's certificate in PEM.
func (s *Service) Roots() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// Mood answers in the service's place wherever it returns true; nil ends it.
func (s *Service) Mood(answer func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = answer
}

// Calls is how often the service was asked anything, Logins how often for a token.
func (s *Service) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Logins is how often tokens were given out.
func (s *Service) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Revoke makes all tokens invalid.
func (s *Service) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

func (s *Service) issue() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins++
	token := word()
	s.tokens[token] = true
	return token
}

func (s *Service) knows(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[token]
}

// first reports whether a nonce is new.
func (s *Service) first(nonce string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := nonce != "" && !s.used[nonce]
	s.used[nonce] = true
	return fresh
}

func (s *Service) seal(plain, bound []byte) []byte { return s.key.Seal(nil, nil, plain, bound) }

func (s *Service) open(sealed, bound []byte) ([]byte, error) {
	return s.key.Open(nil, nil, sealed, bound)
}

// recent reports whether a caller's clock is about right.
func (s *Service) recent(t time.Time) bool {
	d := s.now().Sub(t)
	return d > -5*time.Minute && d < 15*time.Minute
}

func word() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	return "hush-" + hex.EncodeToString(raw)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

var errTooLarge = errors.New("too large")

func body(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil && len(raw) == 1<<20 {
		err = errTooLarge
	}
	return raw, err
}
