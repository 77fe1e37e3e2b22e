// Package luks2 reads and writes LUKS2 headers (LUKS2 On-Disk Format
// Specification 1.1.3) without a program and without the kernel.
//
// The header of a volume lies with the host. Programs that open such volumes
// obey whatever it says, so a host that writes "cipher_null" gets a volume that
// any key opens and that nothing encrypts. This package accepts one form only:
// AES-256 in XTS mode with HMAC-SHA-256 over every sector, one key slot whose
// key is derived by PBKDF2, and nothing else in the header. The header is read
// once into memory, judged there, and never looked at again: what the host
// changes afterwards changes nothing.
//
// A header that passes is not yet a header that the owner made. Open makes it
// so: the host can invent everything in it but a key slot that the owner's key
// opens to a volume key that fits the digest.
package luks2

import (
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// What this package writes, and the only thing that it reads.
const (
	cipherXTS    = "aes-xts-plain64"
	integrityTag = "hmac(sha256)"

	xtsKeySize  = 64 // two AES-256 keys
	macKeySize  = 32
	tagSize     = 32
	stripes     = 4000
	slotSector  = 512
	sectorLarge = 4096

	// VolumeKeySize is that of a volume key in bytes: the two keys of XTS, then
	// that of the HMAC, as the kernel's authenc takes them.
	VolumeKeySize = xtsKeySize + macKeySize
	// TagSize is how many bytes dm-integrity keeps beside each sector.
	TagSize = tagSize
	// MinKeySize is the least length in bytes of a key that Format takes. The
	// key slot hardly slows guessing down, so the key must be random.
	MinKeySize = 32
)

// Errors that tell the caller why a volume was not opened.
var (
	// ErrHeader says that the header is malformed or weaker than is accepted.
	ErrHeader = errors.New("the LUKS2 header is not accepted")
	// ErrKey says that the key does not open the header's key slot. Whether the
	// key or the slot is another one cannot be told.
	ErrKey = errors.New("the key does not open the volume")
)

func refusef(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrHeader, fmt.Errorf(format, args...))
}

// A Header is an accepted header, in memory.
type Header struct {
	// UUID names the volume. The host can choose it.
	UUID string
	// SectorSize is the unit of encryption in bytes: 512 or 4096.
	SectorSize int
	// Offset is where the volume's data starts on the device, in bytes.
	Offset int64

	slot   slot
	digest digest
	area   []byte // of the key slot
}

// Read reads the header of a device, or of an image of one.
func Read(dev io.ReaderAt) (*Header, error) {
	text, bin, err := readBinary(dev)
	if err != nil {
		return nil, err
	}
	h, err := parseMetadata(text, bin.size)
	if err != nil {
		return nil, err
	}
	h.UUID = bin.uuid
	h.area = make([]byte, h.slot.size)
	if _, err := dev.ReadAt(h.area, h.slot.offset); err != nil {
		return nil, fmt.Errorf("read the key slot: %w", err)
	}
	return h, nil
}

// Open returns the volume key. The caller owns it.
func (h *Header) Open(key secret.Bytes) (secret.Bytes, error) {
	slotKey, err := h.slot.kdf.derive(key, xtsKeySize)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer slotKey.Destroy()
	material := secret.Copy(h.area[:VolumeKeySize*stripes])
	defer material.Destroy()
	if err := xts(slotKey.Reveal(), material.Reveal(), false); err != nil {
		return secret.Bytes{}, err
	}
	volumeKey := merge(material, h.slot.hash)
	fits, err := h.digest.fits(volumeKey)
	if err == nil && !fits {
		err = ErrKey
	}
	if err != nil {
		volumeKey.Destroy()
		return secret.Bytes{}, err
	}
	return volumeKey, nil
}
