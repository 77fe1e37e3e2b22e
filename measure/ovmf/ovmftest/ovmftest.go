// Package ovmftest builds firmware files for tests: with the tables that OVMF
// has, and nothing behind them.
package ovmftest

import (
	"encoding/binary"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// Section is a range of memory in the metadata of SEV.
type Section struct{ GPA, Size, Type uint32 }

// TDSection is a range of memory in the metadata of TDX.
type TDSection struct {
	Offset, Size uint32 // in the file
	GPA, Memory  uint64
	Type, Attr   uint32
}

// Layout is what the tables of a firmware say.
type Layout struct {
	Size      int    // of the file in bytes
	Fill      byte   // of all that has no meaning
	Variables []byte // at the beginning of the file
	Reset     uint32
	HashTable [2]uint32 // address and size; zeros leave it out
	SVSMEntry uint32    // zero leaves it out
	SEV       []Section
	TD        []TDSection
}

// Default is the layout of OVMF's AmdSev build, which has everything.
func Default() Layout {
	const size, variables = 0x20000, 0x8000
	return Layout{
		Size: size, Fill: 0x90, Reset: 0x80b004, HashTable: [2]uint32{0x810c00, 0x400},
		SEV: []Section{
			{0x800000, 0x9000, 1},
			{0x80a000, 0x3000, 1},
			{0x80d000, 0x1000, 2},
			{0x80e000, 0x1000, 3},
			{0x80f000, 0x1000, 4},
			{0x811000, 0xf000, 1},
			{0x810000, 0x1000, 0x10},
		},
		TD: []TDSection{
			{variables, size - variables, 1<<32 - size + variables, size - variables, 0, 1},
			{0, variables, 1<<32 - size, variables, 1, 0},
			{0, 0, 0x811000, 0xf000, 3, 0},
			{0, 0, 0x80b000, 0x2000, 3, 0},
			{0, 0, 0x809000, 0x2000, 2, 0},
			{0, 0, 0x800000, 0x6000, 3, 0},
		},
	}
}

// Build returns the file.
func Build(l Layout) []byte {
	file := slices.Repeat([]byte{l.Fill}, l.Size)
	copy(file, l.Variables)
	const tables = 0x800 // bytes before the end where metadata begins
	le := binary.LittleEndian
	at := l.Size - tables
	put := func(b []byte) uint32 {
		distance := l.Size - at
		at += copy(file[at:], b)
		return uint32(distance)
	}
	var table []byte
	entry := func(guid string, data []byte) {
		g, err := efi.ParseGUID(guid)
		if err != nil {
			panic(err) // constants
		}
		table = append(le.AppendUint16(append(table, data...), uint16(len(data)+18)), g[:]...)
	}
	if l.SEV != nil {
		b := append([]byte("ASEV"), words(uint32(16+12*len(l.SEV)), 1, uint32(len(l.SEV)))...)
		for _, s := range l.SEV {
			b = append(b, words(s.GPA, s.Size, s.Type)...)
		}
		entry("dc886566-984a-4798-a75e-5585a7bf67cc", words(put(b)))
	}
	if l.TD != nil {
		b := append([]byte("TDVF"), words(uint32(16+32*len(l.TD)), 1, uint32(len(l.TD)))...)
		for _, s := range l.TD {
			b = append(b, words(s.Offset, s.Size)...)
			b = le.AppendUint64(le.AppendUint64(b, s.GPA), s.Memory)
			b = append(b, words(s.Type, s.Attr)...)
		}
		entry("e47a6535-984a-4798-865e-4685a7bf8ec2", words(put(b)))
	}
	if l.HashTable != [2]uint32{} {
		entry("7255371f-3a3b-4b04-927b-1da6efa8d454", words(l.HashTable[:]...))
	}
	if l.SVSMEntry != 0 {
		entry("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd", words(l.SVSMEntry))
	}
	entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", words(l.Reset))
	end := l.Size - 32
	footer, err := efi.ParseGUID("96b582de-1fb2-45f7-baea-a366c55a082d")
	if err != nil {
		panic(err) // a constant
	}
	table = append(le.AppendUint16(table, uint16(len(table)+18)), footer[:]...)
	copy(file[end-len(table):], table)
	return file
}

func words(n ...uint32) (b []byte) {
	for _, w := range n {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}
