package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/fat"
)

// BootFile is where firmware looks for what to start, on a disk that it has no
// other word about (UEFI 2.11, 3.5.1.1).
const BootFile = "EFI/BOOT/BOOTX64.EFI"

// Types of partitions: UEFI's, and those of the Discoverable Partitions
// Specification for x86-64.
var (
	typeESP    = efi.NewGUID(0xc12a7328, 0xf81f, 0x11d2, 0xba4b00a0c93ec93b)
	typeRoot   = efi.NewGUID(0x4f68bce3, 0xe8cd, 0x4db1, 0x96e7fbcaf984b709)
	typeVerity = efi.NewGUID(0x2c7357ed, 0xebd2, 0x46d9, 0xaec123d437ec2bf5)
)

// Of the partition table (UEFI 2.11, 5.3).
const (
	gptEntries   = 128
	gptEntrySize = 128
	gptHeader    = 92
	gptTable     = gptEntries * gptEntrySize / sector // sectors
	gptRevision  = 0x0001_0000

	protective = 0xee // type in the MBR, which keeps others off the disk
)

// slot is a partition of a GPT.
type slot struct {
	kind, id efi.GUID
	name     string
	content  []byte
}

// Bootable returns a disk that firmware starts: a GPT, an EFI partition with the
// image, and behind it the root and its hash tree, where there is one. What
// numbers the table needs are made of the content, so the same content is the
// same disk; the root's are those of the Discoverable Partitions Specification,
// the halves of the root hash.
func Bootable(image []byte, root *Verified) ([]byte, error) {
	esp, err := fat.Write(BootFile, image)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(image)
	slots := []slot{{typeESP, spelt(sum[:16]), "esp", esp}}
	id := sum
	if root != nil {
		slots = append(slots,
			slot{typeRoot, spelt(root.Hash[:16]), "root", root.Data},
			slot{typeVerity, spelt(root.Hash[16:]), "root-verity", root.Tree})
		id = sha256.Sum256(append(sum[:], root.Hash[:]...))
	}
	return partitioned(spelt(id[16:]), slots)
}

// spelt returns the GUID whose text has these bytes in their order.
func spelt(b []byte) efi.GUID {
	be := binary.BigEndian
	return efi.NewGUID(be.Uint32(b), be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint64(b[8:]))
}

// partitioned lays the partitions out behind each other.
func partitioned(id efi.GUID, slots []slot) ([]byte, error) {
	le := binary.LittleEndian
	entries := make([]byte, gptEntries*gptEntrySize)
	out := make([]byte, alignment)
	for i, s := range slots {
		wide := efi.UTF16(s.name)
		if len(s.content) == 0 || len(wide) > 72 {
			return nil, errors.New("a partition without content, or with a long name")
		}
		e := entries[i*gptEntrySize:]
		copy(e, s.kind[:])
		copy(e[16:], s.id[:])
		le.PutUint64(e[32:], uint64(len(out)/sector))
		out = append(out, s.content...)
		out = append(out, make([]byte, -len(out)&(sector-1))...)
		le.PutUint64(e[40:], uint64(len(out)/sector)-1)
		copy(e[56:], wide)
		out = append(out, make([]byte, -len(out)&(alignment-1))...)
	}
	last := uint64(len(out)/sector) + gptTable // sector of the second header
	head := header{id: id, last: last, entries: crc32.ChecksumIEEE(entries)}
	copy(out[sector:], head.bytes(1, last, 2))
	copy(out[2*sector:], entries)
	out = append(out, entries...)
	out = append(out, head.bytes(last, 1, last-gptTable)...)
	protect(out)
	return out, nil
}

// header is what both copies of the table's header say.
type header struct {
	id      efi.GUID
	last    uint64 // sector of the disk
	entries uint32 // checksum
}

// bytes is a header for one place: its own, that of the other, that of its entries.
func (h header) bytes(self, other, entries uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, sector)
	copy(b, "EFI PART")
	le.PutUint32(b[8:], gptRevision)
	le.PutUint32(b[12:], gptHeader)
	le.PutUint64(b[24:], self)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], 2+gptTable)        // the first sector that may be used
	le.PutUint64(b[48:], h.last-gptTable-1) // and the last one
	copy(b[56:], h.id[:])
	le.PutUint64(b[72:], entries)
	le.PutUint32(b[80:], gptEntries)
	le.PutUint32(b[84:], gptEntrySize)
	le.PutUint32(b[88:], h.entries)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeader]))
	return b
}

// protect writes an MBR with one partition over all.
func protect(disk []byte) {
	e := disk[table:]
	copy(e[1:4], []byte{0x00, 0x02, 0x00})
	e[4] = protective
	copy(e[5:8], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(len(disk)/sector-1, 0xffff_ffff)))
	disk[510], disk[511] = 0x55, 0xaa
}

// CheckBootable reports whether a disk is the one with this image and, where the
// parameters tell of one, a root that leads to its root hash. It returns the
// root's content.
func CheckBootable(disk, image []byte, want *Root) ([]byte, error) {
	var root *Verified
	if want != nil {
		data, err := second(disk)
		if err != nil {
			return nil, err
		}
		if root, err = verified(data, *want); err != nil {
			return nil, err
		}
	}
	again, err := Bootable(image, root)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, disk) {
		return nil, errors.New("the disk is not made of the image and the root that are told")
	}
	if root == nil {
		return nil, nil
	}
	return root.Data, nil
}

// second returns the content of the second partition.
func second(disk []byte) ([]byte, error) {
	le := binary.LittleEndian
	const at = 2*sector + gptEntrySize
	if len(disk) < alignment {
		return nil, errors.New("the disk is too short for a partition table")
	}
	begin, end := le.Uint64(disk[at+32:]), le.Uint64(disk[at+40:])+1
	if sectors := uint64(len(disk) / sector); begin >= end || end > sectors {
		return nil, errors.New("the disk has no partition with a root")
	}
	return disk[begin*sector : end*sector], nil
}
