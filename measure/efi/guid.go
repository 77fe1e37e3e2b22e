// Package efi reads and writes the few forms of UEFI that measured boot hashes:
// GUIDs, UTF-16 texts, variables, device paths, partition tables and PE images.
// It knows nothing of registers or of who measures; packages boot and ovmf do.
package efi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
)

// GUID is a GUID in the mixed byte order that it has in memory (UEFI 2.11,
// appendix A): three little-endian integers, then eight bytes as written.
type GUID [16]byte

// NewGUID makes a GUID from the parts of its text form.
func NewGUID(a uint32, b, c uint16, d uint64) (g GUID) {
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint64(g[8:], d)
	return g
}

// ParseGUID reads the text form, for example
// "8be4df61-93ca-11d2-aa0d-00e098032b8c".
func ParseGUID(s string) (GUID, error) {
	parts := strings.Split(s, "-")
	raw, err := hex.DecodeString(strings.Join(parts, ""))
	if err != nil || len(parts) != 5 || len(raw) != 16 || len(s) != 36 ||
		len(parts[0]) != 8 || len(parts[1]) != 4 || len(parts[2]) != 4 || len(parts[3]) != 4 {
		return GUID{}, fmt.Errorf("%.40q is not a GUID", s)
	}
	return NewGUID(binary.BigEndian.Uint32(raw), binary.BigEndian.Uint16(raw[4:]), binary.BigEndian.Uint16(raw[6:]), binary.BigEndian.Uint64(raw[8:])), nil
}

// String returns the text form in lower case.
func (g GUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[0:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

// UTF16 returns the text in little-endian UTF-16, without a terminator.
func UTF16(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// UTF16Z is [UTF16] with a terminating NUL.
func UTF16Z(s string) []byte { return append(UTF16(s), 0, 0) }
