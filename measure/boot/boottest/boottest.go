// Package boottest builds images for tests: PE files as a firmware starts them,
// with nothing in them that would run.
package boottest

import (
	"encoding/binary"
	"slices"
)

// Section is a section of a PE image.
type Section struct {
	Name string // at most eight bytes
	Data []byte
}

const (
	headers   = 0x600 // bytes, with the setup header of a kernel
	peOffset  = 0x300
	alignment = 0x200
)

// Image returns a PE32+ image with the sections, each aligned as linkers do.
func Image(sections ...Section) []byte {
	const optional, entry = 240, 40
	le := binary.LittleEndian
	file := make([]byte, headers)
	copy(file, "MZ")
	le.PutUint32(file[0x3c:], peOffset)
	pe := file[peOffset:]
	copy(pe, "PE\x00\x00")
	le.PutUint16(pe[4:], 0x8664)
	le.PutUint16(pe[6:], uint16(len(sections)))
	le.PutUint16(pe[20:], optional)
	le.PutUint16(pe[24:], 0x20b)
	le.PutUint32(pe[24+60:], headers)
	le.PutUint32(pe[24+108:], 16) // directories
	for i, s := range sections {
		head := file[peOffset+24+optional+i*entry:]
		copy(head[:8], s.Name)
		size := (len(s.Data) + alignment - 1) / alignment * alignment
		le.PutUint32(head[8:], uint32(len(s.Data)))
		le.PutUint32(head[16:], uint32(size))
		le.PutUint32(head[20:], uint32(len(file)))
		file = append(file, slices.Concat(s.Data, make([]byte, size-len(s.Data)))...)
	}
	return file
}

// Kernel returns a kernel with a setup header, as a bzImage has, for protocol
// 2.15 and an initrd anywhere below 4 GiB.
func Kernel(code []byte) []byte {
	file := Image(Section{".text", code})
	copy(file[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(file[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(file[0x22c:], 0x7fff_ffff)
	file[0x236] = 1 << 1
	return file
}

// Unified returns a unified kernel image of systemd-stub 252.
func Unified(kernel, initrd []byte, commandLine string) []byte {
	return Image(
		Section{".text", []byte("stub")},
		Section{".sdmagic", []byte("#### LoaderInfo: systemd-stub 252.39 ####")},
		Section{".osrel", []byte("ID=test\n")},
		Section{".cmdline", []byte(commandLine)},
		Section{".initrd", initrd},
		Section{".linux", kernel},
	)
}
