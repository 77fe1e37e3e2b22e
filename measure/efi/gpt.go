package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrGPT says that a disk has no partition table, or a broken one.
var ErrGPT = errors.New("malformed GUID partition table")

const (
	gptHeader     = 92
	gptEntry      = 128
	maxGPTEntries = 1024
)

// GPTData returns UEFI_GPT_DATA (PFP 1.06, 10.2.5) of a disk: the header, the
// number of partitions and their entries. The beginning of the disk is enough,
// for most the first 34 sectors. The size of a sector is found by trying.
func GPTData(disk []byte) ([]byte, error) {
	for _, sector := range []int{512, 4096} {
		if len(disk) >= 2*sector && string(disk[sector:sector+8]) == "EFI PART" {
			return gptData(disk, sector)
		}
	}
	return nil, fmt.Errorf("%w: no header", ErrGPT)
}

func gptData(disk []byte, sector int) ([]byte, error) {
	le := binary.LittleEndian
	header := append([]byte(nil), disk[sector:sector+gptHeader]...)
	first, count, size := le.Uint64(header[72:]), le.Uint32(header[80:]), le.Uint32(header[84:])
	if le.Uint32(header[12:]) != gptHeader || size != gptEntry || count > maxGPTEntries {
		return nil, fmt.Errorf("%w: a header of %d bytes with %d entries of %d bytes", ErrGPT, le.Uint32(header[12:]), count, size)
	}
	if first > uint64(len(disk))/uint64(sector) || first*uint64(sector)+uint64(count)*gptEntry > uint64(len(disk)) {
		return nil, fmt.Errorf("%w: its entries lie beyond what was read of the disk", ErrGPT)
	}
	entries := disk[first*uint64(sector):][:count*gptEntry]
	sum := append([]byte(nil), header...)
	le.PutUint32(sum[16:], 0)
	if crc32.ChecksumIEEE(sum) != le.Uint32(header[16:]) || crc32.ChecksumIEEE(entries) != le.Uint32(header[88:]) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrGPT)
	}
	var used []byte
	for ; len(entries) > 0; entries = entries[gptEntry:] {
		if GUID(entries) != (GUID{}) {
			used = append(used, entries[:gptEntry]...)
		}
	}
	out := le.AppendUint64(header, uint64(len(used)/gptEntry))
	return append(out, used...), nil
}
