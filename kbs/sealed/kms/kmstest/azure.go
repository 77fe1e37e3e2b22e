package kmstest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const azureVersion = "0123456789abcdef"

// Azure is a Key Vault and the issuer of access tokens.
func Azure(t testing.TB) *Service {
	key, password := newRSA(t), word()
	s := newService(t, "azure", func(s *Service, w http.ResponseWriter, r *http.Request) { s.serveAzure(w, r, key, password) })
	s.Settings["authority_url"] = s.URL
	s.Resources = map[string]string{CredentialURI: text(map[string]string{
		"tenant_id": "11111111-2222", "client_id": "app", "client_secret": password,
	})}
	s.Secret = func(name string) string { return name }
	s.Key = s.Secret
	return s
}

func (s *Service) serveAzure(w http.ResponseWriter, r *http.Request, key *rsa.PrivateKey, password string) {
	fail := func(status int, code string) {
		answer(w, status, map[string]any{"error": map[string]string{"code": code, "message": "no"}})
	}
	if r.URL.Path == "/11111111-2222/oauth2/v2.0/token" {
		f := func(name string) string { return r.PostForm.Get(name) }
		if r.ParseForm() != nil || f("grant_type") != "client_credentials" || f("client_id") != "app" || f("client_secret") != password || f("scope") != "https://vault.azure.net/.default" {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
			return
		}
		answer(w, http.StatusOK, map[string]any{"access_token": s.issue(), "expires_in": 3599, "token_type": "Bearer"})
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case !s.knows(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")):
		fail(http.StatusUnauthorized, "Unauthorized")
	case r.URL.Query().Get("api-version") != "7.4" || len(parts) < 2:
		fail(http.StatusBadRequest, "BadParameter")
	case parts[1] == Denied:
		fail(http.StatusForbidden, "Forbidden")
	case parts[1] == Gone:
		fail(http.StatusNotFound, "SecretNotFound")
	case r.Method == http.MethodGet && parts[0] == "secrets":
		answer(w, http.StatusOK, map[string]any{"value": Value, "id": s.URL + r.URL.Path + "/" + azureVersion})
	case r.Method == http.MethodPost && parts[0] == "keys":
		s.azureKey(w, r, parts, key, fail)
	default:
		fail(http.StatusNotFound, "NotFound")
	}
}

// azureKey wraps with any version and unwraps with the one.
func (s *Service) azureKey(w http.ResponseWriter, r *http.Request, parts []string, key *rsa.PrivateKey, fail func(int, string)) {
	raw, err := body(r)
	var in struct{ Alg, Value string }
	if err != nil || json.Unmarshal(raw, &in) != nil || in.Alg != "RSA-OAEP-256" {
		fail(http.StatusBadRequest, "BadParameter")
		return
	}
	value, err := base64.RawURLEncoding.DecodeString(in.Value)
	version, verb := "", parts[len(parts)-1]
	if len(parts) == 4 {
		version = parts[2]
	}
	switch {
	case err != nil:
	case verb == "wrapkey":
		value, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, value, nil)
	case verb == "unwrapkey" && version == azureVersion:
		value, err = rsa.DecryptOAEP(sha256.New(), nil, key, value, nil)
	default:
		fail(http.StatusNotFound, "KeyNotFound")
		return
	}
	if err != nil {
		fail(http.StatusBadRequest, "BadParameter")
		return
	}
	answer(w, http.StatusOK, map[string]string{
		"kid": s.URL + "/keys/" + parts[1] + "/" + azureVersion, "value": base64.RawURLEncoding.EncodeToString(value),
	})
}
