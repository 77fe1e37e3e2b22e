package luks2

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// The places of what Format writes, which are cryptsetup's.
const (
	formatHeader = minHeader
	formatArea   = 2 * formatHeader
	formatData   = 16 << 20
	areaSize     = (VolumeKeySize*stripes + sectorLarge - 1) / sectorLarge * sectorLarge

	// HeaderSize is how many bytes at the start of a device Format needs.
	HeaderSize = formatData
)

// Format writes a header for a new volume key, which one key opens, and returns
// both. The key must be random: see [MinKeySize]. The two copies of the header
// come last, so that what is cut short has none.
func Format(dev io.WriterAt, key secret.Bytes) (h *Header, volumeKey secret.Bytes, err error) {
	if key.Len() < MinKeySize {
		return nil, secret.Bytes{}, fmt.Errorf("a key of %d bytes, at least %d random ones are needed", key.Len(), MinKeySize)
	}
	volumeKey = secret.Random(VolumeKeySize)
	defer func() {
		if err != nil {
			volumeKey.Destroy()
			volumeKey = secret.Bytes{}
		}
	}()
	m := newMetadata()
	k := kdf{hash: sha256Name, salt: m.Digests["0"].Salt, iterations: minIterations}
	sum, err := k.derive(volumeKey, sha256Name.size())
	if err != nil {
		return nil, volumeKey, err
	}
	d := m.Digests["0"]
	d.Digest = sum.Reveal()
	m.Digests["0"] = d
	text, err := json.Marshal(m)
	if err != nil {
		return nil, volumeKey, err
	}
	if h, err = parseMetadata(text, formatHeader); err != nil {
		return nil, volumeKey, err
	}
	h.UUID = newUUID()
	if h.area, err = sealSlot(h.slot, key, volumeKey); err != nil {
		return nil, volumeKey, err
	}
	return h, volumeKey, write(dev, h, text)
}

func newMetadata() metadata {
	salt := func() []byte { return secret.Random(32).Reveal() } // not secret, only random
	return metadata{
		Keyslots: map[string]keyslotJSON{"0": {
			Type: "luks2", KeySize: VolumeKeySize,
			AF:   afJSON{Type: "luks1", Stripes: stripes, Hash: string(sha256Name)},
			Area: areaJSON{Type: "raw", Offset: formatArea, Size: areaSize, Encryption: cipherXTS, KeySize: xtsKeySize},
			KDF:  kdfJSON{Type: kdfPBKDF2, Hash: string(sha256Name), Iterations: minIterations, Salt: salt()},
		}},
		Tokens: map[string]json.RawMessage{},
		Segments: map[string]segmentJSON{"0": {
			Type: "crypt", Offset: formatData, Size: "dynamic", IVTweak: "0", Encryption: cipherXTS, SectorSize: sectorLarge,
			Integrity: &integrityJSON{Type: integrityTag, JournalEncryption: "none", JournalIntegrity: "none"},
		}},
		Digests: map[string]digestJSON{"0": {
			Type: kdfPBKDF2, Keyslots: []string{"0"}, Segments: []string{"0"}, Hash: string(sha256Name), Iterations: minIterations, Salt: salt(),
		}},
		Config: configJSON{JSONSize: formatHeader - binarySize, KeyslotsSize: formatData - formatArea},
	}
}

// sealSlot is the area of a key slot that key opens.
func sealSlot(s slot, key, volumeKey secret.Bytes) ([]byte, error) {
	slotKey, err := s.kdf.derive(key, xtsKeySize)
	if err != nil {
		return nil, err
	}
	defer slotKey.Destroy()
	material := split(volumeKey, s.hash).Reveal() // encrypted below, in place
	if err := xts(slotKey.Reveal(), material, true); err != nil {
		clear(material)
		return nil, err
	}
	return append(material, make([]byte, s.size-int64(len(material)))...), nil
}

func write(dev io.WriterAt, h *Header, text []byte) error {
	bin := binaryHeader{size: formatHeader, uuid: h.UUID}
	salts := secret.Random(2 * saltSize).Reveal()
	for _, part := range []struct {
		b  []byte
		at int64
	}{
		{h.area, h.slot.offset},
		{bin.marshal(text, [saltSize]byte(salts[saltSize:]), true), formatHeader},
		{bin.marshal(text, [saltSize]byte(salts[:saltSize]), false), 0},
	} {
		if _, err := dev.WriteAt(part.b, part.at); err != nil {
			return fmt.Errorf("write the header: %w", err)
		}
	}
	return nil
}

// newUUID is a random UUID (RFC 9562, section 5.4).
func newUUID() string {
	u := secret.Random(16).Reveal() // not secret, only random
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
