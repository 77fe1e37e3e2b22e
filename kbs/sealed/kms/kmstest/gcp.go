package kmstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const gcpEmail = "guest@example.iam.gserviceaccount.com"

// GCP is Cloud KMS, Secret Manager and the issuer of access tokens.
func GCP(t testing.TB) *Service {
	key := newRSA(t)
	s := newService(t, "gcp", func(s *Service, w http.ResponseWriter, r *http.Request) { s.serveGCP(w, r, &key.PublicKey) })
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.Resources = map[string]string{CredentialURI: text(map[string]string{
		"type": "service_account", "client_email": gcpEmail, "private_key_id": "1", "token_uri": s.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})}
	s.Secret = func(name string) string { return "projects/p/secrets/" + name }
	s.Key = func(name string) string { return "projects/p/locations/global/keyRings/r/cryptoKeys/" + name }
	return s
}

// theRSA is one key for all services of a process: making one takes long.
var theRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := theRSA()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (s *Service) serveGCP(w http.ResponseWriter, r *http.Request, key *rsa.PublicKey) {
	fail := func(status int, kind string) {
		answer(w, status, map[string]any{"error": map[string]any{"code": status, "status": kind, "message": "no"}})
	}
	if r.URL.Path == "/token" {
		if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || !s.assertion(key, r.PostForm.Get("assertion")) {
			answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
			return
		}
		answer(w, http.StatusOK, map[string]any{"access_token": s.issue(), "expires_in": 3599, "token_type": "Bearer"})
		return
	}
	if !s.knows(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
		fail(http.StatusUnauthorized, "UNAUTHENTICATED")
		return
	}
	name, verb, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), ":")
	if strings.Contains(name, "/"+Denied) {
		fail(http.StatusForbidden, "PERMISSION_DENIED")
		return
	}
	var in struct {
		Plaintext, Ciphertext []byte
		AAD                   []byte `json:"additionalAuthenticatedData"`
	}
	if r.Method == http.MethodPost {
		raw, err := body(r)
		if err != nil || json.Unmarshal(raw, &in) != nil {
			fail(http.StatusBadRequest, "INVALID_ARGUMENT")
			return
		}
	}
	bound := append([]byte(name), in.AAD...)
	switch r.Method + " " + verb {
	case "GET access":
		if name != "projects/p/secrets/app/versions/latest" {
			fail(http.StatusNotFound, "NOT_FOUND")
			return
		}
		answer(w, http.StatusOK, map[string]any{"name": name, "payload": map[string]any{"data": []byte(Value), "dataCrc32c": checksum([]byte(Value))}})
	case "POST encrypt":
		answer(w, http.StatusOK, map[string]any{"name": name + "/cryptoKeyVersions/1", "ciphertext": s.seal(in.Plaintext, bound)})
	case "POST decrypt":
		plain, err := s.open(in.Ciphertext, bound)
		if err != nil {
			fail(http.StatusBadRequest, "INVALID_ARGUMENT")
			return
		}
		answer(w, http.StatusOK, map[string]any{"plaintext": plain, "plaintextCrc32c": checksum(plain)})
	default:
		fail(http.StatusNotFound, "NOT_FOUND")
	}
}

func checksum(b []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), 10)
}

// assertion verifies a JWT as "Using OAuth 2.0 for server to server applications"
// says.
func (s *Service) assertion(key *rsa.PublicKey, jwt string) bool {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return false
	}
	var header struct{ Alg, Typ, Kid string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	for i, v := range []any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, v) != nil {
			return false
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	now := s.now().Unix()
	return err == nil && header.Alg == "RS256" && header.Typ == "JWT" && header.Kid == "1" &&
		rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], signature) == nil &&
		claims.Iss == gcpEmail && claims.Aud == s.URL+"/token" && claims.Scope == "https://www.googleapis.com/auth/cloud-platform" &&
		claims.Iat <= now+60 && claims.Exp > now && claims.Exp-claims.Iat <= 3600
}
