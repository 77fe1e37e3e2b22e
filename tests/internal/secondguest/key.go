package secondguest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwe"
)

// Algorithms of guest keys (section 3.6). RSA15 is that of protocol 0.1.
const (
	P256  = "P-256"
	P384  = "P-384"
	P521  = "P-521"
	RSA   = "RSA-OAEP-256"
	RSA15 = "RSA1_5"
	MLKEM = "ML-KEM-768+A192KW"
)

// Key is a guest's key pair, made for one handshake.
type Key struct {
	public map[string]string // the JWK
	alg    jwa.KeyEncryptionAlgorithm
	ec     *ecdsa.PrivateKey
	rsa    *rsa.PrivateKey
	kem    *mlkem.DecapsulationKey768
}

// NewKey makes a key pair.
func NewKey(kind string) (*Key, error) {
	k := &Key{public: map[string]string{"alg": kind}}
	var err error
	switch kind {
	case P256, P384, P521:
		curve := map[string]elliptic.Curve{P256: elliptic.P256(), P384: elliptic.P384(), P521: elliptic.P521()}[kind]
		if k.ec, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			return nil, err
		}
		point, err := k.ec.PublicKey.Bytes() // 4, x, y, both in full length
		if err != nil {
			return nil, err
		}
		half := (len(point) - 1) / 2
		k.alg = jwa.ECDH_ES_A256KW()
		k.public = map[string]string{"kty": "EC", "crv": kind, "alg": "ECDH-ES+A256KW", "x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}
	case RSA, RSA15:
		if k.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, err
		}
		k.alg = jwa.RSA_OAEP_256()
		k.public = map[string]string{"kty": "RSA", "alg": kind, "n": b64(k.rsa.N.Bytes()), "e": b64(big.NewInt(int64(k.rsa.E)).Bytes())}
	case MLKEM:
		if k.kem, err = mlkem.GenerateKey768(); err != nil {
			return nil, err
		}
		k.public = map[string]string{"kty": "AKP", "alg": kind, "pub": b64(k.kem.EncapsulationKey().Bytes())}
	default:
		return nil, fmt.Errorf("no key of kind %q", kind)
	}
	return k, nil
}

// Public is the JWK that the guest sends. A test may spoil a copy.
func (k *Key) Public() map[string]string { return maps.Clone(k.public) }

// Replace makes the guest send another JWK than its own.
func (k *Key) Replace(jwk map[string]string) { k.public = jwk }

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// flattened is the answer of section 4.
type flattened struct {
	Protected    string  `json:"protected"`
	EncryptedKey string  `json:"encrypted_key"`
	IV           string  `json:"iv"`
	Ciphertext   string  `json:"ciphertext"`
	Tag          string  `json:"tag"`
	AAD          *string `json:"aad"`
}

// open opens an answer. Before that it does what the field's client does: it
// writes the header anew, and demands the same bytes.
func (k *Key) open(raw []byte) ([]byte, error) {
	var f flattened
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if f.AAD != nil {
		return nil, errors.New("the answer has a member aad")
	}
	header, err := base64.RawURLEncoding.DecodeString(f.Protected)
	if err != nil {
		return nil, fmt.Errorf("protected: %w", err)
	}
	again, err := rewrite(header)
	if err != nil {
		return nil, err
	}
	if again != string(header) {
		return nil, fmt.Errorf("the field's client would compute another AAD: header %s, rewritten %s", header, again)
	}
	if k.kem != nil {
		return k.decapsulate(f, header)
	}
	var private any = k.ec
	if k.rsa != nil {
		private = k.rsa
	}
	return jwe.Decrypt(raw, jwe.WithKey(k.alg, private))
}

// rewrite parses a header and writes it as the field's client does: alg, enc,
// then the others by name, compact (section 4).
func rewrite(header []byte) (string, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(header, &m); err != nil {
		return "", fmt.Errorf("protected header: %w", err)
	}
	out := "{"
	names := append([]string{"alg", "enc"}, slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(n string) bool { return n == "alg" || n == "enc" })...)
	for i, n := range names {
		var v any
		if err := json.Unmarshal(m[n], &v); err != nil {
			return "", fmt.Errorf("protected header: %s: %w", n, err)
		}
		text, err := json.Marshal(v) // sorts the members of epk
		if err != nil {
			return "", err
		}
		if i > 0 {
			out += ","
		}
		out += fmt.Sprintf("%q:%s", n, text)
	}
	return out + "}", nil
}

// openOld opens an answer of protocol 0.1 (section 3.7): the header is raw
// JSON, nothing is authenticated beside the text, and the tag follows it.
func (k *Key) openOld(raw []byte) ([]byte, error) {
	var f flattened
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if f.Protected != `{"alg":"RSA1_5","enc":"A256GCM"}` || f.Tag != "" {
		return nil, fmt.Errorf("not an answer of protocol 0.1: header %q, tag %q", f.Protected, f.Tag)
	}
	parts, err := f.decode()
	if err != nil {
		return nil, err
	}
	content, err := rsa.DecryptPKCS1v15(rand.Reader, k.rsa, parts.key) //nolint:staticcheck // what guests of protocol 0.1 do
	if err != nil {
		return nil, err
	}
	return unseal(content, parts.iv, parts.text, nil)
}

type parts struct{ key, iv, text, tag []byte }

func (f flattened) decode() (p parts, err error) {
	for _, m := range []struct {
		to   *[]byte
		text string
	}{{&p.key, f.EncryptedKey}, {&p.iv, f.IV}, {&p.text, f.Ciphertext}, {&p.tag, f.Tag}} {
		if *m.to, err = base64.RawURLEncoding.DecodeString(m.text); err != nil {
			return p, err
		}
	}
	return p, nil
}

func unseal(key, iv, text, bound []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, iv, text, bound)
}
