package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/remote/remotetest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/pkcs11"
)

const tokenPolicy = `package policy

import rego.v1

default allow := false

allow if {
	data.plugin in {"pkcs11", "resource"}
	input.submods.cpu0["ear.status"] == "affirming"
}
`

// A broker with a token beside its store: the same values as a back end at a
// prefix and as the field's plugin, and the field's wrap-key both ways.
func TestToken(t *testing.T) {
	proc := remotetest.Start(t)
	proc.AddPair()
	s := newStage(t)
	s.restartWith(func(c *config.Config) {
		c.Plugins = []config.Plugin{{Name: pkcs11.Name, Socket: proc.Socket}}
		c.ResourceBackends = []config.ResourceBackend{{Name: "hsm", Prefix: "hsm/", Type: config.BackendPKCS11, Socket: proc.Socket}}
	})
	s.know()
	s.acceptLab()
	c := s.client(guest(t, "lab", "agent 1"))
	_, err := c.Resource(t.Context(), "kbs+pkcs11:///resource/hsm/key/1")
	if fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("without a policy that knows the plugin: %v", err)
	}
	s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: tokenPolicy})
	admin := "Authorization: Bearer " + s.adminToken
	at := s.guestURL + api.PathPrefix + "/pkcs11/"
	want := func(a answer, status int, code fault.Code) {
		t.Helper()
		if a.status != status || !strings.Contains(string(a.body), string(code)) {
			t.Errorf("%d %s, want %d %s", a.status, a.body, status, code)
		}
	}
	has := func(uri, value string) {
		t.Helper()
		if got, err := c.Resource(t.Context(), uri); err != nil || string(got.Reveal()) != value {
			t.Errorf("%s: %q, %v", uri, got.Reveal(), err)
		}
	}

	want(s.send(http.MethodPost, at+"resource/hsm/key/1", []byte("in the token"), admin), http.StatusOK, "")
	has("kbs+pkcs11:///resource/hsm/key/1", "in the token")
	has("kbs:///hsm/key/1", "in the token")
	has("kbs:///"+resourcePath, s.value)
	s.must(http.MethodPut, api.PathResources+"/hsm/key/2", []byte("by the other way"))
	has("kbs+pkcs11:///resource/hsm/key/2", "by the other way")
	want(s.send(http.MethodDelete, at+"resource/hsm/key/1", nil, admin), http.StatusOK, "")
	want(s.send(http.MethodDelete, at+"resource/hsm/key/1", nil, admin), http.StatusNotFound, fault.NotFound)
	for _, uri := range []string{"kbs:///hsm/key/1", "kbs+pkcs11:///resource/hsm/key/1"} {
		if _, err := c.Resource(t.Context(), uri); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("a missing object, %s: %v", uri, err)
		}
	}
	want(s.send(http.MethodPost, at+"resource/hsm/key/1", []byte("x")), http.StatusUnauthorized, "")
	want(s.send(http.MethodPost, at+"resource/hsm/../1", []byte("x"), admin), http.StatusBadRequest, fault.InvalidRequest)
	want(s.send(http.MethodPost, at+"resource/hsm/key/1", make([]byte, 64<<10+1), admin), http.StatusRequestEntityTooLarge, fault.TooLarge)
	want(s.send(http.MethodPut, at+"resource/hsm/key/1", []byte("x"), admin), http.StatusMethodNotAllowed, fault.MethodNotAllowed)
	want(s.send(http.MethodDelete, at+"wrap-key", nil, admin), http.StatusMethodNotAllowed, fault.MethodNotAllowed)
	want(s.send(http.MethodGet, at+"other", nil, admin), http.StatusNotFound, fault.NotFound)

	s.wrapsKeys(at+"wrap-key", admin)
	s.logged("pkcs11/", "plugin.call change pkcs11/resource/hsm/key/1", "release allow pkcs11/resource/hsm/key/1",
		"release deny pkcs11/resource/hsm/key/1", "plugin.call change pkcs11/wrap-key", "release allow pkcs11/wrap-key", "release deny pkcs11/wrap-key")

	proc.Kill()
	if _, err := c.Resource(t.Context(), "kbs:///hsm/key/2"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("while the process is away: %v", err)
	}
	want(s.send(http.MethodPost, at+"wrap-key", []byte("x"), admin), http.StatusServiceUnavailable, fault.Unavailable)
	has("kbs:///"+resourcePath, s.value)
}

// wrapsKeys has a key wrapped as an administrator and unwrapped as a guest.
func (s *stage) wrapsKeys(at, admin string) {
	s.t.Helper()
	wrapped := s.send(http.MethodPost, at, []byte("a disk's key"), admin)
	if wrapped.status != http.StatusOK || strings.Contains(string(wrapped.body), "disk") {
		s.t.Fatalf("wrap: %d %s", wrapped.status, wrapped.body)
	}
	h := s.auth(guest(s.t, "lab", "agent 1"))
	a := h.attest(h.message(h.nonce))
	if a.status != http.StatusOK {
		s.t.Fatalf("attest: %d %s", a.status, a.body)
	}
	var tok api.AttestResponse
	if err := json.Unmarshal(a.body, &tok); err != nil {
		s.t.Fatal(err)
	}
	guest := "Authorization: Bearer " + tok.Token
	var sealed api.JWE
	a = s.send(http.MethodGet, at, wrapped.body, guest)
	if err := json.Unmarshal(a.body, &sealed); err != nil {
		s.t.Fatalf("unwrap: %d %s", a.status, a.body)
	}
	if got, err := h.key.Open(sealed); err != nil || string(got.Reveal()) != "a disk's key" {
		s.t.Errorf("unwrapped %q, %v", got.Reveal(), err)
	}
	wrapped.body[9] ^= 1
	if a := s.send(http.MethodGet, at, wrapped.body, guest); a.status != http.StatusBadRequest {
		s.t.Errorf("altered: %d %s", a.status, a.body)
	}
	if a := s.send(http.MethodGet, at, wrapped.body); a.status != http.StatusUnauthorized {
		s.t.Errorf("nobody: %d %s", a.status, a.body)
	}
}

// logged sees that the log has entries "kind decision object" of a plugin.
func (s *stage) logged(prefix string, want ...string) {
	s.t.Helper()
	var all strings.Builder
	for _, e := range s.entries() {
		if strings.HasPrefix(e.Object, prefix) {
			all.WriteString(string(e.Kind) + " " + e.Decision + " " + e.Object + "\n")
		}
	}
	for _, w := range want {
		if !strings.Contains(all.String(), w+"\n") {
			s.t.Errorf("the log has\n%sand no %s", all.String(), w)
		}
	}
}
