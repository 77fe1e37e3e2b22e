package luks2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The binary header (specification, section 2.1): numbers are big-endian.
const (
	binarySize = 4096

	atVersion  = 6
	atSize     = 8
	atSequence = 16
	atChecksum = 72 // name of the algorithm
	atSalt     = 104
	atUUID     = 168
	atOffset   = 256
	atDigest   = 448

	saltSize = 64
	uuidSize = 40
	nameSize = 32

	magicFirst  = "LUKS\xba\xbe"
	magicSecond = "SKUL\xba\xbe"

	// The specification allows headers from 16 KiB to 4 MiB; cryptsetup makes
	// the smallest, and one key slot needs no more.
	minHeader = 16 << 10
	maxHeader = 128 << 10
)

// Is reports whether a device starts as one with LUKS of any version does.
func Is(start []byte) bool { return bytes.HasPrefix(start, []byte(magicFirst)) }

type binaryHeader struct {
	size int64 // with the JSON area; a second copy of as many bytes follows
	uuid string
}

// readBinary returns the JSON text of the first header after checking what
// stands around it. The second copy is for repairs after a crash, which are the
// owner's affair.
func readBinary(dev io.ReaderAt) (text []byte, h binaryHeader, err error) {
	head := make([]byte, binarySize)
	if _, err := dev.ReadAt(head, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, h, refusef("the device is too small for one")
		}
		return nil, h, fmt.Errorf("read the header: %w", err)
	}
	be := binary.BigEndian
	size := be.Uint64(head[atSize:])
	switch {
	case !Is(head):
		return nil, h, refusef("there is none")
	case be.Uint16(head[atVersion:]) != 2:
		return nil, h, refusef("it is of version %d", be.Uint16(head[atVersion:]))
	case size < minHeader || size > maxHeader || size&(size-1) != 0:
		return nil, h, refusef("a header of %d bytes", size)
	case be.Uint64(head[atOffset:]) != 0:
		return nil, h, refusef("it was written for another place")
	case field(head[atChecksum:][:nameSize]) != "sha256":
		return nil, h, refusef("its checksum is not SHA-256")
	}
	whole := make([]byte, size)
	copy(whole, head)
	if _, err := dev.ReadAt(whole[binarySize:], binarySize); err != nil {
		return nil, h, fmt.Errorf("read the header: %w", err)
	}
	if sum := checksum(whole); !bytes.Equal(sum[:], whole[atDigest:][:sha256.Size]) {
		return nil, h, refusef("its checksum is wrong")
	}
	text, rest, _ := bytes.Cut(whole[binarySize:], []byte{0})
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return nil, h, refusef("something follows its JSON text")
	}
	return text, binaryHeader{size: int64(size), uuid: field(head[atUUID:][:uuidSize])}, nil
}

// field is a text that ends at the first zero byte.
func field(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// checksum is over the header with zeros in the checksum's own place.
func checksum(whole []byte) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{whole[:atDigest], make([]byte, 64), whole[atDigest+64:]} {
		_, _ = h.Write(part) // a hash never fails
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// marshal makes one of the two copies. The text must fit.
func (h binaryHeader) marshal(text []byte, salt [saltSize]byte, second bool) []byte {
	whole := make([]byte, h.size)
	be := binary.BigEndian
	copy(whole, magicFirst)
	if second {
		copy(whole, magicSecond)
		be.PutUint64(whole[atOffset:], uint64(h.size))
	}
	be.PutUint16(whole[atVersion:], 2)
	be.PutUint64(whole[atSize:], uint64(h.size))
	be.PutUint64(whole[atSequence:], 1)
	copy(whole[atChecksum:], "sha256")
	copy(whole[atSalt:], salt[:])
	copy(whole[atUUID:], h.uuid)
	copy(whole[binarySize:], text)
	sum := checksum(whole)
	copy(whole[atDigest:], sum[:])
	return whole
}
