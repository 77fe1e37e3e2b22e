package server_test

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// keySet fetches the key set as a relying party does, without a credential.
func (s *stage) keySet() jose.JSONWebKeySet {
	s.t.Helper()
	a := s.send(http.MethodGet, s.guestURL+api.PathJWKS, nil)
	if a.status != http.StatusOK || a.header.Get("Cache-Control") != "public, max-age=300" {
		s.t.Fatalf("%d %s %s", a.status, a.header, a.body)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(a.body, &set); err != nil {
		s.t.Fatal(err)
	}
	return set
}

// A relying party verifies with the published set alone, before and after a
// rotation; a guest's token survives it.
func TestKeySetAndRotation(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	verifies := func(set jose.JSONWebKeySet, text string) bool {
		jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		_, err = jws.Verify(set)
		return err == nil
	}
	first := s.keySet()
	old := s.auth(guest(t, "lab", "agent 1")).token()
	if len(first.Keys) != 2 || !verifies(first, old) {
		t.Fatalf("%d keys, and the token does not verify", len(first.Keys))
	}
	for _, k := range first.Keys {
		if !k.IsPublic() || len(k.Certificates) != 2 || k.Use != "sig" || k.Algorithm != "ES256" {
			t.Errorf("key %+v", k)
		}
	}

	if a := s.admin(http.MethodPost, api.PathRotateTokenKey, nil); a.status != http.StatusConflict || !strings.Contains(string(a.body), "too young") {
		t.Errorf("a rotation at once: %d %s", a.status, a.body)
	}
	s.clock.advance(token.PublishedFirst)
	old = s.auth(guest(t, "lab", "agent 1")).token()
	list := s.admin(http.MethodGet, api.PathTokenKeys, nil)
	rotate := func(etag string) answer {
		return s.send(http.MethodPost, s.adminURL+api.PathRotateTokenKey, []byte(`{}`), "Authorization: Bearer "+s.adminToken, "If-Match: "+etag)
	}
	if a := rotate(list.header.Get("ETag")); a.status != http.StatusOK {
		t.Fatalf("rotate: %d %s", a.status, a.body)
	}
	if a := rotate(list.header.Get("ETag")); a.status != http.StatusConflict {
		t.Errorf("a stale version: %d %s", a.status, a.body)
	}
	if a := rotate("yesterday"); a.status != http.StatusBadRequest {
		t.Errorf("no version: %d %s", a.status, a.body)
	}

	fresh := s.auth(guest(t, "lab", "agent 1")).token()
	if !verifies(first, fresh) {
		t.Error("who has the older set cannot verify: the key was not published before it signed")
	}
	if !verifies(s.keySet(), old) {
		t.Error("the token before the rotation is dead")
	}
	get := func(text string) int {
		return s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+text).status
	}
	for name, text := range map[string]string{"old": old, "fresh": fresh} {
		if got := get(text); got != http.StatusOK {
			t.Errorf("%s: %d", name, got)
		}
	}
	s.must(http.MethodPost, api.PathRotateTokenKey, []byte(`{"revoke":true}`))
	if got := get(fresh); got != http.StatusUnauthorized {
		t.Errorf("after the revocation: %d", got)
	}
	all := s.entries()
	if e := all[len(all)-2]; e.Kind != "token.key.rotate" || e.Subject != "admin:bootstrap" || e.Details["revoked"] == "" {
		t.Errorf("entry %+v", e)
	}
}

func TestDiscovery(t *testing.T) {
	s := newStage(t)
	var d struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	a := s.send(http.MethodGet, s.guestURL+api.PathDiscovery, nil)
	if err := json.Unmarshal(a.body, &d); err != nil || d.Issuer != "vouchsafe-kbs" || d.JWKS != s.guestURL+api.PathJWKS {
		t.Errorf("%d %s", a.status, a.body)
	}
	if c := a.header.Get("Cache-Control"); c != "no-store" {
		t.Errorf("an address that the asker chose is cached: %s", c)
	}
	s.stop()
	s.cfg.AttestationService.AttestationTokenBroker.IssuerName = "https://kbs.example/a"
	s.start()
	a = s.send(http.MethodGet, s.guestURL+api.PathDiscovery, nil, "Host: evil.example")
	if err := json.Unmarshal(a.body, &d); err != nil || d.Issuer != "https://kbs.example/a" || d.JWKS != "https://kbs.example/a"+api.PathJWKS {
		t.Errorf("%d %s", a.status, a.body)
	}
	if c := a.header.Get("Cache-Control"); !strings.HasPrefix(c, "public") {
		t.Errorf("not cacheable: %s", c)
	}
	if a := s.send(http.MethodGet, s.adminURL+api.PathJWKS, nil); a.status != http.StatusNotFound {
		t.Errorf("on the administrators' listener: %d", a.status)
	}
}

// A token of another broker is a passport here, if the configuration trusts its
// issuer: by its authority or by its key set.
func TestPassport(t *testing.T) {
	abroad, home := newStage(t), newStage(t)
	abroad.know()
	abroad.acceptLab()
	home.acceptLab()
	h := abroad.auth(guest(t, "lab", "agent 1"))
	passport := h.token()
	get := func() answer {
		return home.send(http.MethodGet, home.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+passport)
	}
	if a := get(); a.status != http.StatusUnauthorized {
		t.Fatalf("a stranger's token: %d %s", a.status, a.body)
	}
	set := abroad.keySet()
	authority := set.Keys[0].Certificates[1]
	dir := t.TempDir()
	files := map[string][]byte{
		"ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}),
		"jwks":   abroad.send(http.MethodGet, abroad.guestURL+api.PathJWKS, nil).body,
	}
	for name, raw := range files {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, trust := range map[string]config.AttestationToken{
		"by certificate": {TrustedCertsPaths: []string{filepath.Join(dir, "ca.pem")}},
		"by key set":     {TrustedJWKSets: []string{"file://" + filepath.Join(dir, "jwks")}},
	} {
		home.stop()
		home.cfg.AttestationToken = trust
		home.start()
		a := get()
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		var msg api.JWE
		if err := json.Unmarshal(a.body, &msg); err != nil {
			t.Fatal(err)
		}
		if value, err := h.key.Open(msg); err != nil || string(value.Reveal()) != home.value {
			t.Errorf("%s: %v", name, err)
		}
		all := home.entries()
		if e := all[len(all)-1]; e.Kind != "release" || !strings.HasPrefix(e.Subject, "guest:snp/foreign-") {
			t.Errorf("%s: entry %+v", name, e)
		}
	}
}

// A bearer token travels in a request head, which proxies cut at 8 KiB: with
// one CPU it stays well below, certificate included.
func TestTokensAreSmall(t *testing.T) {
	s := newStage(t)
	text := s.auth(guest(t, "lab", "agent 1")).token()
	if len(text) > 6<<10 {
		t.Errorf("the token has %d bytes", len(text))
	}
}
