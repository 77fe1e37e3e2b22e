package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	wrapGCM       = "A256GCM"
	wrapCTR       = "A256CTR"
	packetVersion = "0.1.0"
	providerKBS   = "kbs"
	maxPacket     = 64 << 10 // bytes
	gcmIVSize     = 12
	gcmTagSize    = 16
	kekSize       = 32
	maxKID        = 1024
	kidExample    = "kbs:///repository/type/tag"
)

// kidForm is a resource URI of the broker: three path segments, and a host
// that may be left out (guest-protocol 9).
var kidForm = regexp.MustCompile(`^kbs(?:\+[a-z0-9-]+)?://[A-Za-z0-9.:\[\]-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*){3}$`)

// A Packet is a layer's wrapped private options, as the annotation holds it
// (guest-protocol 11.3, versions 1 and 2). Only the provider "kbs" is read:
// the key-encrypting key is a resource of the broker.
type Packet struct {
	KID         string // resource URI of the key-encrypting key
	WrappedData []byte // ciphertext and tag
	IV          []byte
	WrapType    string
}

type packetJSON struct {
	KID         string `json:"kid"`
	WrappedData []byte `json:"wrapped_data"`
	IV          []byte `json:"iv"`
	WrapType    string `json:"wrap_type"`
}

// ParsePacket reads a packet. A key ID without scheme, which the field's tools
// write by default, is completed to a resource URI. Members that are not of
// the specification are ignored.
func ParsePacket(raw []byte) (*Packet, error) {
	if len(raw) > maxPacket {
		return nil, fmt.Errorf("key packet of %d bytes, at most %d are read", len(raw), maxPacket)
	}
	o, err := strictjson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("key packet: %w", err)
	}
	var w packetJSON
	version, provider := packetVersion, providerKBS
	for name, v := range map[string]any{"kid": &w.KID, "wrapped_data": &w.WrappedData, "iv": &w.IV,
		"wrap_type": &w.WrapType, "version": &version, "provider": &provider} {
		if _, err := o.Take(name, v); err != nil {
			return nil, fmt.Errorf("key packet: %w", err)
		}
	}
	if provider != providerKBS || version != packetVersion {
		return nil, fmt.Errorf("key packet of provider %.40q, version %.40q is not supported", provider, version)
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	kid, err := NormalizeKID(w.KID)
	if err != nil {
		return nil, fmt.Errorf("key packet: %w", err)
	}
	return &Packet{KID: kid, WrappedData: w.WrappedData, IV: w.IV, WrapType: w.WrapType}, nil
}

func (w *packetJSON) check() error {
	sizes := map[string]struct{ iv, least int }{wrapGCM: {gcmIVSize, gcmTagSize + 1}, wrapCTR: {nonceSize, 1}}
	size, ok := sizes[w.WrapType]
	switch {
	case !ok:
		return fmt.Errorf("key wrap %.40q is not supported: %s and %s are", w.WrapType, wrapGCM, wrapCTR)
	case len(w.IV) != size.iv:
		return fmt.Errorf("key packet with an IV of %d bytes, want %d", len(w.IV), size.iv)
	case len(w.WrappedData) < size.least:
		return errors.New("key packet holds no wrapped data")
	}
	return nil
}

// NormalizeKID completes a key ID to a resource URI: "/a/b/c" and "host/a/b/c"
// get the scheme kbs.
func NormalizeKID(kid string) (string, error) {
	full := kid
	if !strings.Contains(kid, "://") {
		full = "kbs://" + kid
	}
	if len(full) > maxKID || !kidForm.MatchString(full) {
		return "", fmt.Errorf("key ID %.80q is not of the form %s", kid, kidExample)
	}
	return full, nil
}

// Open unwraps the private options with the key-encrypting key of 32 bytes.
func (p *Packet) Open(kek secret.Bytes) (secret.Bytes, error) {
	if err := (&packetJSON{WrappedData: p.WrappedData, IV: p.IV, WrapType: p.WrapType}).check(); err != nil {
		return secret.Bytes{}, err
	}
	if p.WrapType == wrapCTR {
		return p.openCTR(kek)
	}
	aead, err := newAEAD(kek)
	if err != nil {
		return secret.Bytes{}, err
	}
	plain, err := aead.Open(nil, p.IV, p.WrappedData, nil)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("key packet does not open with the key %s", p.KID)
	}
	return secret.New(plain), nil
}

// openCTR opens what peers may send and this package never writes. The cipher
// notices no change, so what comes out is looked at: another key gives no
// options of a layer. That the packet is whole rests on the manifest's signature.
func (p *Packet) openCTR(kek secret.Bytes) (secret.Bytes, error) {
	block, err := newKEK(kek)
	if err != nil {
		return secret.Bytes{}, err
	}
	plain := secret.New(make([]byte, len(p.WrappedData)))
	cipher.NewCTR(block, p.IV).XORKeyStream(plain.Reveal(), p.WrappedData)
	private, err := ParsePrivate(plain)
	if err != nil {
		plain.Destroy()
		return secret.Bytes{}, fmt.Errorf("key packet does not open with the key %s", p.KID)
	}
	private.Key.Destroy()
	return plain, nil
}

// SealPacket wraps private options under the key-encrypting key of 32 bytes
// and returns the packet's JSON, version 1: every reader of the field knows it.
func SealPacket(kek secret.Bytes, kid string, private secret.Bytes) ([]byte, error) {
	full, err := NormalizeKID(kid)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(kek)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, gcmIVSize)
	rand.Read(iv) // crypto/rand.Read never fails
	return json.Marshal(packetJSON{KID: full, IV: iv, WrapType: wrapGCM, WrappedData: aead.Seal(nil, iv, private.Reveal(), nil)})
}

func newKEK(kek secret.Bytes) (cipher.Block, error) {
	if kek.Len() != kekSize {
		return nil, fmt.Errorf("key-encrypting key of %d bytes, want %d", kek.Len(), kekSize)
	}
	return aes.NewCipher(kek.Reveal())
}

func newAEAD(kek secret.Bytes) (cipher.AEAD, error) {
	block, err := newKEK(kek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
