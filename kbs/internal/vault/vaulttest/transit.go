package vaulttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// key is one key of the transit engine, which is mounted at "transit".
type key struct {
	kind       string
	versions   []cipher.AEAD
	minDecrypt int
	ignoresAAD bool
}

func newKey(kind string) *key {
	k := &key{kind: kind, minDecrypt: 1}
	k.rotate()
	return k
}

func (k *key) rotate() {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	block, err := aes.NewCipher(raw)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	k.versions = append(k.versions, aead)
}

// AddKey makes a transit key of a type. One that ignores associated data is
// what engines from before that parameter are.
func (s *Server) AddKey(name, kind string, ignoresAAD bool) {
	s.Lock()
	defer s.Unlock()
	s.keys[name] = newKey(kind)
	s.keys[name].ignoresAAD = ignoresAAD
}

// Rotate adds a version, as an administrator of the Vault does.
func (s *Server) Rotate(name string) {
	s.Lock()
	defer s.Unlock()
	s.keys[name].rotate()
}

// Forbid sets the oldest version that may still decrypt.
func (s *Server) Forbid(name string, minDecrypt int) {
	s.Lock()
	defer s.Unlock()
	s.keys[name].minDecrypt = minDecrypt
}

func (s *Server) transit(w http.ResponseWriter, r *http.Request, path string, body map[string]any) {
	parts := strings.Split(path, "/")
	if parts[0] != "transit" || len(parts) < 3 {
		Refuse(w, http.StatusNotFound, "no handler for route")
		return
	}
	k := s.keys[parts[2]]
	switch op := parts[1]; {
	case k == nil && op == "keys":
		write(w, http.StatusNotFound, map[string]any{"errors": []string{}})
	case k == nil:
		Refuse(w, http.StatusBadRequest, "encryption key not found")
	case op == "keys" && len(parts) == 4 && parts[3] == "rotate":
		k.rotate()
		w.WriteHeader(http.StatusNoContent)
	case op == "keys" && r.Method == http.MethodGet:
		Answer(w, map[string]any{
			"type": k.kind, "derived": false, "latest_version": len(k.versions), "min_decryption_version": k.minDecrypt,
			"min_encryption_version": 0, "deletion_allowed": false,
		})
	case op == "encrypt":
		k.encrypt(w, body)
	case op == "decrypt":
		k.decrypt(w, body)
	default:
		Refuse(w, http.StatusNotFound, "no handler for route")
	}
}

func (k *key) aad(body map[string]any) []byte {
	if k.ignoresAAD {
		return nil
	}
	text, _ := body["associated_data"].(string)
	raw, _ := base64.StdEncoding.DecodeString(text)
	return raw
}

func (k *key) encrypt(w http.ResponseWriter, body map[string]any) {
	text, _ := body["plaintext"].(string)
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		Refuse(w, http.StatusBadRequest, "failed to base64-decode plaintext")
		return
	}
	n := len(k.versions)
	if v, ok := body["key_version"].(float64); ok && v != 0 {
		n = int(v)
	}
	if n < 1 || n > len(k.versions) {
		Refuse(w, http.StatusBadRequest, "requested version for encryption is higher than the latest key version")
		return
	}
	sealed := k.versions[n-1].Seal(nil, nil, plain, k.aad(body))
	Answer(w, map[string]any{
		"ciphertext": fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(sealed)), "key_version": n,
	})
}

func (k *key) decrypt(w http.ResponseWriter, body map[string]any) {
	text, _ := body["ciphertext"].(string)
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 || parts[0] != "vault" {
		Refuse(w, http.StatusBadRequest, "invalid ciphertext: no prefix")
		return
	}
	n, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
	raw, err2 := base64.StdEncoding.DecodeString(parts[2])
	switch {
	case err != nil || err2 != nil || n < 1 || n > len(k.versions):
		Refuse(w, http.StatusBadRequest, "invalid ciphertext")
		return
	case n < k.minDecrypt:
		Refuse(w, http.StatusBadRequest, "ciphertext or signature version is disallowed by policy (too old)")
		return
	}
	plain, err := k.versions[n-1].Open(nil, nil, raw, k.aad(body))
	if err != nil {
		Refuse(w, http.StatusBadRequest, "invalid ciphertext: unable to decrypt")
		return
	}
	Answer(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
}
