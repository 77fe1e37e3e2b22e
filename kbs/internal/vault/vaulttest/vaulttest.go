// Package vaulttest is a Vault for tests: a server on loopback, over TLS, that
// has the calls which the broker uses, with tokens that expire, policies that
// refuse, real AES-GCM in its transit engine, and the moods of a real one.
//
// What it answers follows the HTTP API of Vault 1.15 and OpenBao 2: the form of
// bodies and errors, the status codes, and the prefix of ciphertexts.
package vaulttest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is one Vault. Its members may be changed under Lock.
type Server struct {
	sync.Mutex
	*httptest.Server

	Now       func() time.Time
	Namespace string // that requests must name
	TTL       time.Duration
	Renewable bool
	RoleID    string
	SecretID  string
	KubeRole  string
	JWT       string
	// Mood may answer a request in the server's place; it returns true if it
	// did. It is called without the lock.
	Mood func(w http.ResponseWriter, r *http.Request) bool

	Calls  map[string]int // by path, without /v1/
	tokens map[string]time.Time
	keys   map[string]*key
	kv     map[string][]*kvVersion
}

// Start returns a server with the transit key "kbs", and closes it at the end
// of the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		Now: time.Now, TTL: time.Hour, Renewable: true, RoleID: word(), SecretID: word(), KubeRole: "kbs", JWT: word(),
		Calls: map[string]int{}, tokens: map[string]time.Time{}, keys: map[string]*key{"kbs": newKey("aes256-gcm96")},
		kv: map[string][]*kvVersion{},
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients that lack the CA
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func word() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	return "hush-" + hex.EncodeToString(raw)
}

// CAFile writes the server's certificate and returns the path.
func (s *Server) CAFile(t testing.TB) string {
	t.Helper()
	return File(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// File writes a private file and returns its path.
func File(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Issue makes a token that lives for TTL; a TTL of zero is for ever.
func (s *Server) Issue() string {
	s.Lock()
	defer s.Unlock()
	return s.issue()
}

func (s *Server) issue() string {
	token := word()
	s.tokens[token] = s.end()
	return token
}

func (s *Server) end() time.Time {
	if s.TTL == 0 {
		return time.Time{}
	}
	return s.Now().Add(s.TTL)
}

// Revoke makes every token invalid.
func (s *Server) Revoke() {
	s.Lock()
	defer s.Unlock()
	clear(s.tokens)
}

// Count returns how often a path was called.
func (s *Server) Count(path string) int {
	s.Lock()
	defer s.Unlock()
	return s.Calls[path]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.Lock()
	s.Calls[path]++
	mood := s.Mood
	s.Unlock()
	if mood != nil && mood(w, r) {
		return
	}
	s.Lock()
	defer s.Unlock()
	var body map[string]any
	if r.Body != nil && r.ContentLength != 0 {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			Refuse(w, http.StatusBadRequest, "failed to parse JSON input: "+err.Error())
			return
		}
	}
	switch {
	case r.Header.Get("X-Vault-Request") != "true":
		Refuse(w, http.StatusPreconditionFailed, "missing X-Vault-Request")
	case r.Header.Get("X-Vault-Namespace") != s.Namespace:
		Refuse(w, http.StatusNotFound, "no handler for route")
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		s.logIn(w, path, body)
	case !s.valid(r.Header.Get("X-Vault-Token")):
		Refuse(w, http.StatusForbidden, "permission denied")
	case path == "auth/token/lookup-self":
		ttl := int64(0)
		if end := s.tokens[r.Header.Get("X-Vault-Token")]; !end.IsZero() {
			ttl = int64(end.Sub(s.Now()) / time.Second)
		}
		Answer(w, map[string]any{"ttl": ttl, "renewable": s.Renewable})
	case path == "auth/token/renew-self":
		if !s.Renewable {
			Refuse(w, http.StatusBadRequest, "lease is not renewable")
			return
		}
		s.tokens[r.Header.Get("X-Vault-Token")] = s.end()
		s.grant(w, r.Header.Get("X-Vault-Token"))
	case strings.HasPrefix(path, "secret/"):
		s.serveKV(w, r, strings.TrimPrefix(path, "secret/"), body)
	default:
		s.transit(w, r, path, body)
	}
}

func (s *Server) valid(token string) bool {
	end, ok := s.tokens[token]
	return ok && (end.IsZero() || s.Now().Before(end))
}

func (s *Server) logIn(w http.ResponseWriter, path string, body map[string]any) {
	switch {
	case path == "auth/approle/login" && body["role_id"] == s.RoleID && body["secret_id"] == s.SecretID,
		path == "auth/kubernetes/login" && body["role"] == s.KubeRole && body["jwt"] == s.JWT:
		s.grant(w, s.issue())
	default:
		Refuse(w, http.StatusBadRequest, "invalid role or secret ID")
	}
}

func (s *Server) grant(w http.ResponseWriter, token string) {
	write(w, http.StatusOK, map[string]any{"auth": map[string]any{
		"client_token": token, "lease_duration": int64(s.TTL / time.Second), "renewable": s.Renewable,
	}})
}

// Answer writes data as a Vault does.
func Answer(w http.ResponseWriter, data any) {
	write(w, http.StatusOK, map[string]any{"request_id": word(), "data": data})
}

// Refuse writes an error as a Vault does.
func Refuse(w http.ResponseWriter, status int, text string) {
	write(w, status, map[string]any{"errors": []string{text}})
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
