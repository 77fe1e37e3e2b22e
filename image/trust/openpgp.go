package trust

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	maxSigned  = 256 << 10 // bytes of one signature file
	maxPackets = 8         // of one signature file
)

// A keyring holds the OpenPGP keys of one requirement.
type keyring struct {
	entities openpgp.EntityList
	now      func() time.Time
}

// keyDataBase64 is how containers-policy.json(5) writes a keyring.
func keyDataBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("keyData is not base64")
	}
	return b, nil
}

// parseKeyring reads public keys, armored or not.
func parseKeyring(raw []byte) (openpgp.EntityList, error) {
	if len(raw) > maxKeyFile {
		return nil, fmt.Errorf("keyring of %d bytes, at most %d are read", len(raw), maxKeyFile)
	}
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	list, err := read(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("a keyring without keys")
	}
	return list, nil
}

// pgpFingerprint names an OpenPGP key in verdicts: by its primary key.
func pgpFingerprint(e *openpgp.Entity) string {
	return "openpgp:" + hex.EncodeToString(e.PrimaryKey.Fingerprint)
}

// open verifies a signed message and returns what it says and whose key made
// it. Subkeys that the primary key lets sign are as good as itself.
func (k keyring) open(raw []byte) (payload []byte, signer string, err error) {
	payload, sig, err := splitMessage(raw)
	if err != nil {
		return nil, "", fmt.Errorf("signed message: %w", err)
	}
	if sig.SigType != packet.SigTypeBinary || !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, sig.Hash) {
		return nil, "", fmt.Errorf("signed message: signature of type %d with hash %s", sig.SigType, sig.Hash)
	}
	var detached bytes.Buffer
	if err := sig.Serialize(&detached); err != nil {
		return nil, "", fmt.Errorf("signed message: %w", err)
	}
	config := &packet.Config{Time: k.now}
	_, entity, err := openpgp.VerifyDetachedSignature(k.entities, bytes.NewReader(payload), &detached, config)
	if err != nil {
		return nil, "", fmt.Errorf("signed message: %w", err)
	}
	if err := strongKeys(entity); err != nil {
		return nil, "", err
	}
	return payload, pgpFingerprint(entity), nil
}

// strongKeys refuses entities with an RSA key that is short, as cosign's are.
func strongKeys(e *openpgp.Entity) error {
	keys := []*packet.PublicKey{e.PrimaryKey}
	for _, s := range e.Subkeys {
		keys = append(keys, s.PublicKey)
	}
	for _, k := range keys {
		if r, ok := k.PublicKey.(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			return fmt.Errorf("RSA key of %d bits in %s, at least %d are needed", r.N.BitLen(), pgpFingerprint(e), minRSABits)
		}
	}
	return nil
}

// splitMessage reads a signed message (RFC 9580, section 10.3) of the one shape
// that signers of images make: compressed or not, a one-pass signature, the
// data, one signature. All else is refused before any key is looked at.
func splitMessage(raw []byte) ([]byte, *packet.Signature, error) {
	if len(raw) > maxSigned {
		return nil, nil, fmt.Errorf("%d bytes, at most %d are read", len(raw), maxSigned)
	}
	packets := packet.NewReader(bytes.NewReader(raw))
	var payload []byte
	var onePass, compressed bool
	for range maxPackets {
		p, err := packets.Next()
		if err != nil {
			return nil, nil, err
		}
		switch p := p.(type) {
		case *packet.Compressed:
			if compressed || onePass || payload != nil {
				return nil, nil, errors.New("data is compressed where it should not be")
			}
			compressed = true
			if err := packets.Push(io.LimitReader(p.Body, maxSigned)); err != nil {
				return nil, nil, err
			}
		case *packet.OnePassSignature:
			if onePass || payload != nil || !p.IsLast {
				return nil, nil, errors.New("more than one signature")
			}
			onePass = true
		case *packet.LiteralData:
			if !onePass || payload != nil {
				return nil, nil, errors.New("data that no signature announces")
			}
			if payload, err = readPayload(p.Body); err != nil {
				return nil, nil, err
			}
		case *packet.Signature:
			if payload == nil {
				return nil, nil, errors.New("a signature before what it signs")
			}
			if _, err := packets.Next(); !errors.Is(err, io.EOF) {
				return nil, nil, errors.New("something after the signature")
			}
			return payload, p, nil
		default:
			return nil, nil, fmt.Errorf("a packet that is no part of a signed message (%T)", p)
		}
	}
	return nil, nil, fmt.Errorf("more than %d packets", maxPackets)
}

func readPayload(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPayload+1))
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || len(b) > maxPayload {
		return nil, fmt.Errorf("data of %d bytes, 1 to %d are read", len(b), maxPayload)
	}
	return b, nil
}
