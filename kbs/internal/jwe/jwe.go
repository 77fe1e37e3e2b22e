// Package jwe seals a secret to a guest's key and opens it there: JSON Web
// Encryption (RFC 7516) in the flattened form and with the few algorithms that
// the KBS protocol uses (kbs-protocol 4).
//
// It is written out here, not taken from a JOSE library, because the bytes of
// the protected header are part of the contract: the field's guest parses the
// header, writes it again in its own order and uses that as the associated
// data. A header in any other order cannot be opened. And a broker that knows
// only a handful of algorithms cannot be talked into another.
//
// Functions are safe for concurrent use; a [PrivateKey] is immutable.
package jwe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Values of the alg and enc header members (kbs-protocol 4).
const (
	AlgECDH   = "ECDH-ES+A256KW" // with P-256, P-384 or P-521
	AlgRSA    = "RSA-OAEP-256"
	AlgMLKEM  = "ML-KEM-768+A192KW"
	AlgHybrid = "X25519+ML-KEM-768+A256KW" // ours: see docs/adr/0010
	EncGCM    = "A256GCM"
)

// MaxPlaintext is the longest secret in bytes: the JWE of a longer one would
// not fit the 4 MiB that clients read.
const MaxPlaintext = 3<<20 - 3<<10

const (
	maxHeader = 8 << 10 // base64url text of the protected header
	cekBytes  = 32
	ivBytes   = 12
	tagBytes  = 16
)

// ErrOpen is returned for everything that fails after the header was
// understood: which key or byte was wrong is nobody's business.
var ErrOpen = errors.New("jwe: cannot be opened with this key")

// header is the protected header. The order of the members is the contract of
// kbs-protocol 4: alg, enc, then the others sorted.
type header struct {
	Alg string        `json:"alg"`
	Enc string        `json:"enc"`
	EK  string        `json:"ek,omitempty"` // KEM ciphertext
	EPK *ephemeralKey `json:"epk,omitempty"`
}

type ephemeralKey struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// Seal encrypts plaintext to the guest key jwk. Randomness comes from random,
// crypto/rand.Reader if that is nil; it is read in the order ephemeral key,
// content key, IV. (ML-KEM has its own source.) Keys that [Check] refuses are
// refused.
func Seal(random io.Reader, jwk api.JWK, plaintext []byte) (api.JWE, error) {
	if random == nil {
		random = rand.Reader
	}
	if len(plaintext) > MaxPlaintext {
		return api.JWE{}, fmt.Errorf("jwe: a secret has at most %d bytes", MaxPlaintext)
	}
	key, err := parse(jwk)
	if err != nil {
		return api.JWE{}, err
	}
	to, err := key.recipient(random)
	if err != nil {
		return api.JWE{}, err
	}
	text, err := json.Marshal(to.header)
	if err != nil {
		return api.JWE{}, err
	}
	return sealUnder(random, to, text, plaintext)
}

// sealUnder encrypts with the given text as the protected header.
func sealUnder(random io.Reader, to *recipient, text, plaintext []byte) (api.JWE, error) {
	cek, iv, err := draw(random)
	if err != nil {
		return api.JWE{}, err
	}
	defer clear(cek)
	encryptedKey, err := to.wrap(random, cek)
	if err != nil {
		return api.JWE{}, err
	}
	gcm, err := contentCipher(cek)
	if err != nil {
		return api.JWE{}, err
	}
	protected := encode(text)
	sealed := gcm.Seal(nil, iv, plaintext, []byte(protected))
	cut := len(sealed) - tagBytes
	return api.JWE{
		Protected:    protected,
		EncryptedKey: encode(encryptedKey),
		IV:           encode(iv),
		Ciphertext:   encode(sealed[:cut]),
		Tag:          encode(sealed[cut:]),
	}, nil
}

// draw takes the content key and the IV of one message from random.
func draw(random io.Reader) (cek, iv []byte, err error) {
	cek, iv = make([]byte, cekBytes), make([]byte, ivBytes)
	if _, err := io.ReadFull(random, cek); err != nil {
		return nil, nil, fmt.Errorf("jwe: draw content key: %w", err)
	}
	if _, err := io.ReadFull(random, iv); err != nil {
		return nil, nil, fmt.Errorf("jwe: draw iv: %w", err)
	}
	return cek, iv, nil
}

// Open decrypts a message that was sealed to k. The header must name exactly
// the algorithm and curve of k; the received header text itself is what gets
// authenticated. Errors after that point are [ErrOpen] and say no more.
func (k *PrivateKey) Open(m api.JWE) (secret.Bytes, error) {
	h, err := parseHeader(m.Protected)
	if err != nil {
		return secret.Bytes{}, err
	}
	if h.Alg != k.alg {
		return secret.Bytes{}, fmt.Errorf("jwe: header alg %.32q is not the key's %s", h.Alg, k.alg)
	}
	if len(m.Ciphertext) > base64.RawURLEncoding.EncodedLen(MaxPlaintext) {
		return secret.Bytes{}, errors.New("jwe: ciphertext is too long")
	}
	encryptedKey, err1 := decode(m.EncryptedKey, maxHeader)
	iv, err2 := decode(m.IV, ivBytes)
	ciphertext, err3 := decode(m.Ciphertext, MaxPlaintext)
	tag, err4 := decode(m.Tag, tagBytes)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return secret.Bytes{}, fmt.Errorf("jwe: %w", err)
	}
	if len(iv) != ivBytes || len(tag) != tagBytes {
		return secret.Bytes{}, errors.New("jwe: iv or tag has the wrong length")
	}
	cek, err := k.unwrap(h, encryptedKey)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(cek)
	gcm, err := contentCipher(cek)
	if err != nil {
		return secret.Bytes{}, err
	}
	plaintext, err := gcm.Open(nil, iv, append(ciphertext, tag...), []byte(m.Protected))
	if err != nil {
		return secret.Bytes{}, ErrOpen
	}
	return secret.New(plaintext), nil
}

// parseHeader reads a protected header. Members that would change how the
// message is processed, but which this protocol never uses, are refused.
func parseHeader(protected string) (header, error) {
	text, err := decode(protected, maxHeader)
	if err != nil {
		return header{}, fmt.Errorf("jwe: header: %w", err)
	}
	// Canonicalisation refuses what parsers disagree about: duplicate members,
	// trailing data, deep nesting.
	if _, err := jcs.Transform(text); err != nil {
		return header{}, fmt.Errorf("jwe: header: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return header{}, fmt.Errorf("jwe: header: %w", err)
	}
	for _, name := range []string{"crit", "zip", "apu", "apv", "b64"} {
		if _, ok := members[name]; ok {
			return header{}, fmt.Errorf("jwe: header member %s is not part of the protocol", name)
		}
	}
	var h header
	if err := exact(members, "alg", &h.Alg); err != nil {
		return header{}, err
	}
	if err := exact(members, "enc", &h.Enc); err != nil {
		return header{}, err
	}
	if h.Enc != EncGCM {
		return header{}, fmt.Errorf("jwe: header enc %.32q is not %s", h.Enc, EncGCM)
	}
	if _, ok := members["ek"]; ok {
		if err := exact(members, "ek", &h.EK); err != nil {
			return header{}, err
		}
	}
	if raw, ok := members["epk"]; ok {
		h.EPK, err = parseEphemeral(raw)
	}
	return h, err
}

func parseEphemeral(raw json.RawMessage) (*ephemeralKey, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("jwe: header epk: %w", err)
	}
	var k ephemeralKey
	for name, to := range map[string]*string{"crv": &k.Crv, "kty": &k.Kty, "x": &k.X, "y": &k.Y} {
		if err := exact(members, name, to); err != nil {
			return nil, err
		}
	}
	return &k, nil
}

// exact reads a required string member. encoding/json would also accept the
// name in another case, and null for a string.
func exact(members map[string]json.RawMessage, name string, to *string) error {
	raw := members[name]
	if len(raw) == 0 || raw[0] != '"' {
		return fmt.Errorf("jwe: header member %s is not a string", name)
	}
	return json.Unmarshal(raw, to)
}

func contentCipher(cek []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode reads base64url without padding, at most limit bytes of it. The
// standard decoder skips line breaks; here they are refused.
func decode(s string, limit int) ([]byte, error) {
	if len(s) > base64.RawURLEncoding.EncodedLen(limit) {
		return nil, errors.New("a member is too long")
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("a member is not base64url")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("a member is not base64url")
	}
	return b, nil
}
