package kbs

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/secondguest"
)

func TestProtocol(t *testing.T) {
	s := newStage(t, "")
	for _, kind := range []string{secondguest.P256, secondguest.P384, secondguest.P521, secondguest.RSA, secondguest.MLKEM} {
		t.Run("key "+kind, func(t *testing.T) { s.with(t).fetch(s.guest(s.key(kind))) })
	}
	t.Run("extra params", func(t *testing.T) {
		for _, extra := range []string{`""`, `{}`, `{"supported-hash-algorithms":["sha384"]}`, `{"attestation-policy-selector":""}`} {
			g := s.guest(s.key(secondguest.P256))
			g.ExtraParams = extra
			s.with(t).fetch(g)
		}
	})
	t.Run("version", s.sub((*stage).version))
	t.Run("platform", s.sub((*stage).platform))
	t.Run("session", s.sub((*stage).session))
	t.Run("binding", s.sub((*stage).binding))
	t.Run("statuses", s.sub((*stage).statuses))
}

// with is the stage for a subtest.
func (s *stage) with(t *testing.T) *stage {
	sub := *s
	sub.T = t
	return &sub
}

func (s *stage) sub(f func(*stage)) func(*testing.T) { return func(t *testing.T) { f(s.with(t)) } }

// Clients look for the words of the refusal (3.1).
func (s *stage) version() {
	for _, version := range []string{"0.5.0", "1.0.0", "0.4", "", "0.3.0", "=0.4.0"} {
		g := s.guest(s.key(secondguest.P256))
		g.Version = version
		_, err := g.Auth(s.Context())
		info := s.refused(err, http.StatusUnauthorized, "AttestationError")
		if !strings.Contains(info.Detail, "KBS Client Protocol Version Mismatch") {
			s.Errorf("%q: %s", version, info.Detail)
		}
	}
}

func (s *stage) platform() {
	for _, tee := range []string{"sev", "SNP", "", "tdx"} {
		g := s.guest(s.key(secondguest.P256))
		g.TEE = tee
		if _, err := g.Auth(s.Context()); err == nil {
			s.Errorf("%q was accepted", tee)
		} else {
			s.refused(err, http.StatusUnauthorized, "AttestationError")
		}
	}
}

// A challenge is answered once, by who was given it.
func (s *stage) session() {
	g := s.guest(s.key(secondguest.P256))
	c, err := g.Auth(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	first, err := g.Attest(s.Context(), c)
	if err != nil {
		s.Fatal(err)
	}
	// An attested session gives its token again, whatever the evidence (3.3).
	if again, err := g.Attest(s.Context(), c); err != nil || again != first {
		s.Errorf("the same session again: %v", err)
	}
	other := s.guest(s.key(secondguest.P256))
	if _, err := other.Attest(s.Context(), c); err == nil {
		s.Error("a guest without a session was attested")
	} else {
		s.refused(err, http.StatusUnauthorized, "AttestationError")
	}
	if _, err := other.Auth(s.Context()); err != nil {
		s.Fatal(err)
	}
	if _, err := other.Attest(s.Context(), c); err == nil { // another session's nonce
		s.Error("the nonce of another session was taken")
	}
	if _, err := other.Resource(s.Context(), "interop/key/1", ""); err == nil {
		s.Error("a session that is not attested got a resource")
	} else {
		s.refused(err, http.StatusUnauthorized, "TokenNotFound")
	}
}

// Evidence is for one key and one nonce.
func (s *stage) binding() {
	g := s.guest(s.key(secondguest.P256))
	c, err := g.Auth(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	evidence, err := s.chip.Evidence([]byte("another digest"))
	if err != nil {
		s.Fatal(err)
	}
	g.Evidence = func([]byte) (json.RawMessage, error) { return evidence, nil }
	_, err = g.Attest(s.Context(), c)
	s.refused(err, http.StatusUnauthorized, "AttestationError")

	// A hostile host swaps the key after the evidence was made.
	g = s.guest(s.key(secondguest.P256))
	if c, err = g.Auth(s.Context()); err != nil {
		s.Fatal(err)
	}
	body, err := g.Attestation(c)
	if err != nil {
		s.Fatal(err)
	}
	swapped := swapKey(s.T, body, s.key(secondguest.P256).Public())
	_, err = g.Do(s.Context(), http.MethodPost, "/kbs/v0/attest", swapped, g.WithCookie)
	s.refused(err, http.StatusUnauthorized, "AttestationError")
}

// What a client does next depends on the status (2.5).
func (s *stage) statuses() {
	g := s.guest(s.key(secondguest.P256))
	token, err := g.Handshake(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	_, err = g.Resource(s.Context(), "interop/key/absent", token)
	s.refused(err, http.StatusNotFound, "PluginInternalError")
	_, err = g.Resource(s.Context(), "other/key/1", token)
	s.refused(err, http.StatusForbidden, "PolicyDeny")
	_, err = g.Resource(s.Context(), "interop/key/1", token+"x")
	s.refused(err, http.StatusUnauthorized, "TokenVerifierError")
	_, err = s.guest(nil).Resource(s.Context(), "interop/key/1", "")
	s.refused(err, http.StatusUnauthorized, "TokenNotFound")
	for _, path := range []string{"/kbs/v0/", "/kbs/v0/nothing", "/kbs/v0/nothing/a/b"} {
		_, err = g.Do(s.Context(), http.MethodGet, path, nil)
		s.refused(err, http.StatusNotFound, "PluginNotFound")
	}
	_, err = g.Do(s.Context(), http.MethodPost, "/kbs/v0/resource/interop/key/2", []byte("x"))
	s.refused(err, http.StatusUnauthorized, "AdminAuthAccess")
}

// swapKey puts another key into the body of /attest.
func swapKey(t *testing.T, body []byte, key map[string]string) []byte {
	t.Helper()
	var m map[string]map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	m["runtime-data"]["tee-pubkey"] = key
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
