package crypt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	cipherName = "AES_256_CTR_HMAC_SHA256"
	nonceName  = "nonce"
	maxOptions = 64 << 10 // bytes of either options document
)

// Public is the part of the layer options that the manifest shows.
type Public struct {
	HMAC  []byte // over the ciphertext
	Nonce []byte // nil in what this package writes; ocicrypt would prefer it over the private one
}

// Private is the part that the key wrap protects.
type Private struct {
	Key    secret.Bytes
	Nonce  []byte
	Digest digest.Digest // of the blob before encryption; informative, the diffID is what counts
}

func (p Public) nonce(priv Private) []byte {
	if p.Nonce != nil {
		return p.Nonce
	}
	return priv.Nonce
}

// The wire forms (guest-protocol 11.1). encoding/json writes []byte as base64.
type publicJSON struct {
	Cipher  string            `json:"cipher"`
	HMAC    []byte            `json:"hmac"`
	Options map[string][]byte `json:"cipheroptions"`
}

type privateJSON struct {
	Key     []byte            `json:"symkey"`
	Digest  digest.Digest     `json:"digest"`
	Options map[string][]byte `json:"cipheroptions"`
}

// Marshal returns the JSON of the public options.
func (p Public) Marshal() ([]byte, error) {
	w := publicJSON{Cipher: cipherName, HMAC: p.HMAC, Options: map[string][]byte{}}
	if p.Nonce != nil {
		w.Options[nonceName] = p.Nonce
	}
	return json.Marshal(w)
}

// ParsePublic reads public options. Another cipher, or an HMAC or nonce of
// another length than the cipher's, is an error.
func ParsePublic(raw []byte) (Public, error) {
	var w publicJSON
	if err := takeAll(raw, map[string]any{"cipher": &w.Cipher, "hmac": &w.HMAC, "cipheroptions": &w.Options}); err != nil {
		return Public{}, fmt.Errorf("public layer options: %w", err)
	}
	if w.Cipher != cipherName {
		return Public{}, fmt.Errorf("layer cipher %.40q is not supported", w.Cipher)
	}
	if len(w.HMAC) != macSize {
		return Public{}, fmt.Errorf("layer HMAC of %d bytes, want %d", len(w.HMAC), macSize)
	}
	p := Public{HMAC: w.HMAC}
	if n, ok := w.Options[nonceName]; ok {
		if len(n) != nonceSize {
			return Public{}, fmt.Errorf("layer nonce of %d bytes, want %d", len(n), nonceSize)
		}
		p.Nonce = n
	}
	return p, nil
}

// Marshal returns the JSON of the private options, which holds the key.
func (p Private) Marshal() (secret.Bytes, error) {
	b, err := json.Marshal(privateJSON{Key: p.Key.Reveal(), Digest: p.Digest, Options: map[string][]byte{nonceName: p.Nonce}})
	if err != nil {
		return secret.Bytes{}, errors.New("private layer options cannot be written")
	}
	return secret.New(b), nil
}

// ParsePrivate reads private options. The errors quote nothing of the input.
func ParsePrivate(doc secret.Bytes) (Private, error) {
	var w privateJSON
	if takeAll(doc.Reveal(), map[string]any{"symkey": &w.Key, "digest": &w.Digest, "cipheroptions": &w.Options}) != nil {
		clear(w.Key)
		return Private{}, errors.New("private layer options are not well formed")
	}
	if len(w.Key) != keySize {
		defer clear(w.Key)
		return Private{}, fmt.Errorf("layer key of %d bytes, want %d", len(w.Key), keySize)
	}
	p := Private{Key: secret.New(w.Key), Digest: w.Digest}
	if n, ok := w.Options[nonceName]; ok {
		if len(n) != nonceSize {
			return Private{}, fmt.Errorf("layer nonce of %d bytes, want %d", len(n), nonceSize)
		}
		p.Nonce = n
	}
	return p, nil
}

// takeAll reads the named members and ignores others, as ocicrypt does.
func takeAll(raw []byte, members map[string]any) error {
	if len(raw) > maxOptions {
		return fmt.Errorf("%d bytes, at most %d are read", len(raw), maxOptions)
	}
	o, err := strictjson.Parse(raw)
	if err != nil {
		return err
	}
	for name, v := range members {
		if _, err := o.Take(name, v); err != nil {
			return err
		}
	}
	return nil
}

// ID names the key and nonce without giving them away: a hash of 256 random
// bits cannot be searched. A layer cache keys decrypted layers on it, so that
// an image reaches plaintext only by holding the key that made it.
func (p Private) ID() string {
	h := sha256.New()
	h.Write([]byte("vouchsafe layer key\x00"))
	h.Write(p.Key.Reveal())
	h.Write(p.Nonce)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
