// Package uki makes a unified kernel image: systemd's EFI stub with a kernel, an
// initrd and a command line as sections behind it, one file that a firmware
// starts and measures (UAPI group, Unified Kernel Image).
package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrStub says that a stub is no PE image to which sections can be added.
var ErrStub = errors.New("the stub cannot be made a unified kernel image")

// A Section is added under a name of at most eight bytes.
type Section struct {
	Name    string
	Content []byte
}

// Offsets in the headers (PE format, Microsoft; COFF and PE32+).
const (
	atPE = 0x3c

	coffSize = 24 // with the signature
	entry    = 40 // of the table of sections

	sectionPage = 4096 // where sections begin in memory

	// What is read at its place, initialized data and readable.
	readOnlyData = 0x40000040

	maxImage = 1 << 31
)

// stub is the headers of a PE image.
type stub struct {
	raw        []byte
	pe         int // offset of the signature
	optional   int
	table      int
	sections   int
	alignment  uint32 // of sections in the file
	headerSize uint32
}

// Make returns the stub with the sections behind its own, in the given order. The
// result holds no time and no checksum, so the same parts are the same bytes.
func Make(raw []byte, add []Section) ([]byte, error) {
	s, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if s.table+entry*(s.sections+len(add)) > int(s.headerSize) {
		return nil, fmt.Errorf("%w: its headers have no room for %d sections more", ErrStub, len(add))
	}
	end, memory, err := s.ends()
	if err != nil {
		return nil, err
	}
	out := make([]byte, end)
	copy(out, raw) // without the symbols behind the sections
	le := binary.LittleEndian
	initialized := le.Uint32(out[s.optional+8:])
	for i, a := range add {
		size := align(uint64(len(a.Content)), uint64(s.alignment))
		memory = align(memory, sectionPage)
		if len(a.Name) > 8 || len(a.Content) == 0 || uint64(len(out))+size > maxImage || memory+size > maxImage {
			return nil, fmt.Errorf("%w: section %.10q of %d bytes", ErrStub, a.Name, len(a.Content))
		}
		e := out[s.table+entry*(s.sections+i):][:entry]
		clear(e)
		copy(e, a.Name)
		le.PutUint32(e[8:], uint32(len(a.Content)))
		le.PutUint32(e[12:], uint32(memory))
		le.PutUint32(e[16:], uint32(size))
		le.PutUint32(e[20:], uint32(len(out)))
		le.PutUint32(e[36:], readOnlyData)
		out = append(out, a.Content...)
		out = append(out, make([]byte, size-uint64(len(a.Content)))...)
		memory += uint64(len(a.Content))
		initialized += uint32(size)
	}
	le.PutUint16(out[s.pe+6:], uint16(s.sections+len(add)))
	clear(out[s.pe+8 : s.pe+20]) // time, and where symbols were
	le.PutUint32(out[s.optional+8:], initialized)
	le.PutUint32(out[s.optional+56:], uint32(align(memory, sectionPage))) // SizeOfImage
	le.PutUint32(out[s.optional+64:], 0)                                  // CheckSum
	return out, nil
}

func align(n, to uint64) uint64 { return (n + to - 1) / to * to }

func parse(raw []byte) (*stub, error) {
	le := binary.LittleEndian
	if len(raw) < 0x40 || len(raw) > 64<<20 || raw[0] != 'M' || raw[1] != 'Z' {
		return nil, fmt.Errorf("%w: it is no PE image", ErrStub)
	}
	pe := uint64(le.Uint32(raw[atPE:]))
	if pe+coffSize > uint64(len(raw)) || string(raw[pe:pe+4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("%w: it is no PE image", ErrStub)
	}
	s := &stub{raw: raw, pe: int(pe), optional: int(pe) + coffSize}
	s.sections = int(le.Uint16(raw[pe+6:]))
	s.table = s.optional + int(le.Uint16(raw[pe+20:]))
	if s.table-s.optional < 112 || s.table+entry*s.sections > len(raw) || le.Uint16(raw[s.optional:]) != 0x20b {
		return nil, fmt.Errorf("%w: it is no PE32+ image", ErrStub)
	}
	s.alignment, s.headerSize = le.Uint32(raw[s.optional+36:]), le.Uint32(raw[s.optional+60:])
	if s.alignment < 512 || s.alignment > 65536 || s.alignment&(s.alignment-1) != 0 || uint64(s.headerSize) > uint64(len(raw)) {
		return nil, fmt.Errorf("%w: an alignment of %d bytes", ErrStub, s.alignment)
	}
	return s, nil
}

// ends returns where the sections end in the file and in memory.
func (s *stub) ends() (file int, memory uint64, err error) {
	le := binary.LittleEndian
	end := uint64(s.headerSize)
	for i := range s.sections {
		e := s.raw[s.table+entry*i:]
		memory = max(memory, uint64(le.Uint32(e[12:]))+uint64(le.Uint32(e[8:])))
		end = max(end, uint64(le.Uint32(e[20:]))+uint64(le.Uint32(e[16:])))
	}
	if end > uint64(len(s.raw)) {
		return 0, 0, fmt.Errorf("%w: a section ends behind the file", ErrStub)
	}
	return int(align(end, uint64(s.alignment))), memory, nil
}
