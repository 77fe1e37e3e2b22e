package resource

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A sealed value is
//
//	format     1 byte, 1
//	master id  8 bytes, tells which master key it is under
//	data key   60 bytes: nonce, AES-256-GCM under the wrapping key, tag
//	value      28 bytes and more: nonce, AES-256-GCM under the data key, tag
//
// The additional data of both seals is the label of its purpose and the
// binding. Nonces are random: 96 bits for at most 2^32 seals of one master key
// (NIST SP 800-38D section 8.3), and a data key seals only once.
const (
	sealFormat   = 1
	sizeKey      = 32
	sizeID       = 8
	sizeOverhead = 12 + 16
	sizeWrapped  = sizeKey + sizeOverhead
	sizeSealed   = 1 + sizeID + sizeWrapped + sizeOverhead // of an empty value
)

var (
	// ErrSealed says that a stored value does not open: it was altered, moved,
	// brought back from another version, or sealed under another master key.
	ErrSealed = errors.New("resource: the stored value does not open")
	// ErrMasterKey says that a master key cannot be the right one.
	ErrMasterKey = errors.New("resource: wrong master key")
)

// sealer holds what is derived from the master key.
type sealer struct {
	id   [sizeID]byte
	wrap cipher.AEAD
}

func newSealer(master secret.Bytes) (*sealer, error) {
	if master.Len() != sizeKey {
		return nil, fmt.Errorf("%w: it has %d bytes, want %d", ErrMasterKey, master.Len(), sizeKey)
	}
	id, err := hkdf.Key(sha256.New, master.Reveal(), nil, "vouchsafe resource master id v1", sizeID)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	key, err := hkdf.Key(sha256.New, master.Reveal(), nil, "vouchsafe resource data key wrapping v1", sizeKey)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	defer clear(key)
	wrap, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	s := &sealer{wrap: wrap}
	copy(s.id[:], id)
	return s, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	return aead, nil
}

// binding is the additional data: where a value belongs, unambiguously.
func binding(path string, version int64, description []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(version))
	b = binary.BigEndian.AppendUint32(b, uint32(len(path)))
	b = append(b, path...)
	return append(b, description...)
}

func labelled(label string, bound []byte) []byte { return append([]byte(label+"\x00"), bound...) }

func (s *sealer) seal(value, bound []byte) ([]byte, error) {
	key := make([]byte, sizeKey)
	defer clear(key)
	rand.Read(key) // crypto/rand.Read never fails
	data, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, sizeSealed+len(value))
	out = append(out, sealFormat)
	out = append(out, s.id[:]...)
	out = s.wrap.Seal(out, nil, key, labelled("key", bound))
	return data.Seal(out, nil, value, labelled("value", bound)), nil
}

func (s *sealer) open(sealed, bound []byte) (secret.Bytes, error) {
	if len(sealed) < sizeSealed || sealed[0] != sealFormat {
		return secret.Bytes{}, fmt.Errorf("%w: it is not in a known format", ErrSealed)
	}
	id, rest := sealed[1:1+sizeID], sealed[1+sizeID:]
	if !bytes.Equal(id, s.id[:]) {
		return secret.Bytes{}, fmt.Errorf("%w: it is under another master key", ErrSealed)
	}
	key, err := s.wrap.Open(nil, nil, rest[:sizeWrapped], labelled("key", bound))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: its data key is not for this path and version", ErrSealed)
	}
	defer clear(key)
	data, err := newAEAD(key)
	if err != nil {
		return secret.Bytes{}, err
	}
	value, err := data.Open(nil, nil, rest[sizeWrapped:], labelled("value", bound))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: it was altered", ErrSealed)
	}
	return secret.New(value), nil
}
