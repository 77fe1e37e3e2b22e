package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// WrapGCM is AES-256-GCM, with the tag after the text: what the data of an
// envelope, and a key under a key of the broker, are encrypted with. A256CTR, which
// the field reads too, authenticates nothing and is refused: the field's own tool
// writes no secrets with it.
const WrapGCM = "A256GCM"

// Envelopment is a secret under a key of its own, and that key under one of a key
// management service (guest-protocol 10.2).
type Envelopment struct {
	KeyID         string `json:"key_id,omitempty"`         // at the provider; of provider "kbs" a resource URI
	EncryptedKey  string `json:"encrypted_key,omitempty"`  // base64
	EncryptedData string `json:"encrypted_data,omitempty"` // base64
	WrapType      string `json:"wrap_type,omitempty"`
	IV            string `json:"iv,omitempty"` // base64, of the data
}

// NewEnvelopment encrypts a value under a key of its own, which it returns too:
// a provider is to encrypt it, and SetKey takes the result.
func NewEnvelopment(value secret.Bytes) (*Envelopment, secret.Bytes, error) {
	key, iv := secret.Random(keySize), secret.Random(nonceSize)
	gcm, err := newGCM(key)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	return &Envelopment{
		EncryptedData: base64.StdEncoding.EncodeToString(gcm.Seal(nil, iv.Reveal(), value.Reveal(), nil)),
		WrapType:      WrapGCM, IV: base64.StdEncoding.EncodeToString(iv.Reveal()),
	}, key, nil
}

// SetKey enters the encrypted key, and the key that it is encrypted with.
func (e *Envelopment) SetKey(keyID string, wrapped []byte) {
	e.KeyID, e.EncryptedKey = keyID, base64.StdEncoding.EncodeToString(wrapped)
}

// SealKey encrypts a key with one of the broker, see [OpenKey].
func SealKey(kek, key secret.Bytes) ([]byte, error) {
	gcm, err := newGCM(kek)
	if err != nil {
		return nil, err
	}
	iv := secret.Random(nonceSize).Reveal()
	return gcm.Seal(iv, iv, key.Reveal(), nil), nil
}

// Sizes in bytes.
const (
	keySize   = 32
	nonceSize = 12
)

func parseEnvelopment(members map[string]json.RawMessage) (*Envelopment, error) {
	e := new(Envelopment)
	for name, v := range map[string]*string{
		"key_id": &e.KeyID, "encrypted_key": &e.EncryptedKey, "encrypted_data": &e.EncryptedData, "wrap_type": &e.WrapType, "iv": &e.IV,
	} {
		if err := json.Unmarshal(members[name], v); err != nil || *v == "" {
			return nil, fmt.Errorf("sealed secret: payload: member %q is missing or wrong", name)
		}
	}
	if e.WrapType != WrapGCM {
		return nil, fmt.Errorf("sealed secret: wrap_type %.20q, want %q", e.WrapType, WrapGCM)
	}
	return e, nil
}

// Key returns the encrypted key's bytes.
func (e *Envelopment) Key() ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(e.EncryptedKey)
	if err != nil {
		return nil, errors.New("sealed secret: encrypted_key is not base64")
	}
	return raw, nil
}

// Open decrypts the data with its key of 32 bytes.
func (e *Envelopment) Open(key secret.Bytes) (secret.Bytes, error) {
	iv, ierr := base64.StdEncoding.Strict().DecodeString(e.IV)
	data, derr := base64.StdEncoding.Strict().DecodeString(e.EncryptedData)
	if ierr != nil || derr != nil {
		return secret.Bytes{}, errors.New("sealed secret: iv or encrypted_data is not base64")
	}
	return openGCM(key, iv, data)
}

// OpenKey decrypts a key that is encrypted with one of the broker: a nonce of 12
// bytes, then the text and its tag. The field has no such provider for secrets.
func OpenKey(kek secret.Bytes, wrapped []byte) (secret.Bytes, error) {
	if len(wrapped) < nonceSize {
		return secret.Bytes{}, errors.New("sealed secret: encrypted_key is too short")
	}
	return openGCM(kek, wrapped[:nonceSize], wrapped[nonceSize:])
}

func newGCM(key secret.Bytes) (cipher.AEAD, error) {
	if key.Len() != keySize {
		return nil, errors.New("sealed secret: the key has not 32 bytes")
	}
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func openGCM(key secret.Bytes, iv, data []byte) (secret.Bytes, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(iv) != gcm.NonceSize() {
		return secret.Bytes{}, errors.New("sealed secret: the iv has not 12 bytes")
	}
	plain, err := gcm.Open(nil, iv, data, nil)
	if err != nil {
		return secret.Bytes{}, errors.New("sealed secret: the envelope does not open with its key")
	}
	return secret.New(plain), nil
}
