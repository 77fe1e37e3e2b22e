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
// envelope, and a key under a key of the broker, are encrypted with. The field's
// A256CTR authenticates nothing and is refused.
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
	const nonce = 12
	if len(wrapped) < nonce {
		return secret.Bytes{}, errors.New("sealed secret: encrypted_key is too short")
	}
	return openGCM(kek, wrapped[:nonce], wrapped[nonce:])
}

func openGCM(key secret.Bytes, iv, data []byte) (secret.Bytes, error) {
	if key.Len() != 32 {
		return secret.Bytes{}, errors.New("sealed secret: the key has not 32 bytes")
	}
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return secret.Bytes{}, err
	}
	gcm, err := cipher.NewGCM(block)
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
