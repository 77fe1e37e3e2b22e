package efi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// disk is the beginning of a disk with two partitions, the second and fourth of
// four entries.
func disk() []byte {
	le := binary.LittleEndian
	raw := make([]byte, 3*512)
	entries := raw[1024:]
	copy(entries[128:], bytes.Repeat([]byte{1}, 128))
	copy(entries[384:], bytes.Repeat([]byte{2}, 128))
	header := raw[512:604]
	copy(header, "EFI PART")
	le.PutUint32(header[12:], 92)
	le.PutUint64(header[72:], 2)
	le.PutUint32(header[80:], 4)
	le.PutUint32(header[84:], 128)
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header))
	return raw
}

// UEFI_GPT_DATA is the header, a count, and the entries in use.
func TestGPTData(t *testing.T) {
	raw := disk()
	want := append(bytes.Clone(raw[512:604]), 2, 0, 0, 0, 0, 0, 0, 0)
	want = append(append(want, bytes.Repeat([]byte{1}, 128)...), bytes.Repeat([]byte{2}, 128)...)
	got, err := efi.GPTData(raw)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	for name, change := range map[string]func([]byte) []byte{
		"no table":        func([]byte) []byte { return make([]byte, 4096) },
		"cut":             func(b []byte) []byte { return b[:1100] },
		"header changed":  func(b []byte) []byte { b[512+40]++; return b },
		"entry changed":   func(b []byte) []byte { b[1024+130]++; return b },
		"many entries":    func(b []byte) []byte { b[512+82] = 1; return b },
		"entries far off": func(b []byte) []byte { b[512+79] = 0x80; return b },
		"wide entries":    func(b []byte) []byte { b[512+85] = 1; return b },
	} {
		if _, err := efi.GPTData(change(disk())); !errors.Is(err, efi.ErrGPT) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
