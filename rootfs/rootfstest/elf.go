// Package rootfstest makes what images are built from, for tests: packages,
// programs and kernel modules that have the forms of real ones and nothing in them
// that would run.
package rootfstest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
)

type section struct {
	name string
	kind elf.SectionType
	link uint32 // number of another section
	data []byte
}

// object writes an ELF file of these sections, and a table of names behind them.
// An interpreter becomes a program header.
func object(kind elf.Type, interpreter string, sections ...section) []byte {
	const header, programHeader, sectionHeader = 64, 56, 64
	sections = append([]section{{}}, sections...)
	names := section{name: ".shstrtab", kind: elf.SHT_STRTAB}
	sections = append(sections, names)
	var text bytes.Buffer
	offsets := make([]uint32, len(sections))
	for i, s := range sections {
		offsets[i] = uint32(text.Len())
		text.WriteString(s.name + "\x00")
	}
	sections[len(sections)-1].data = text.Bytes()

	le := binary.LittleEndian
	out := make([]byte, header+programHeader)
	copy(out, elf.ELFMAG)
	out[4], out[5], out[6] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	le.PutUint16(out[16:], uint16(kind))
	le.PutUint16(out[18:], uint16(elf.EM_X86_64))
	le.PutUint32(out[20:], uint32(elf.EV_CURRENT))
	le.PutUint16(out[52:], header)
	le.PutUint16(out[54:], programHeader)
	le.PutUint16(out[58:], sectionHeader)
	if interpreter != "" {
		le.PutUint64(out[32:], header)
		le.PutUint16(out[56:], 1)
		p := out[header:]
		le.PutUint32(p, uint32(elf.PT_INTERP))
		le.PutUint64(p[8:], uint64(len(out)))
		le.PutUint64(p[32:], uint64(len(interpreter)+1))
		out = append(out, interpreter+"\x00"...)
	}
	var table []byte
	for i, s := range sections {
		h := make([]byte, sectionHeader)
		le.PutUint32(h, offsets[i])
		le.PutUint32(h[4:], uint32(s.kind))
		le.PutUint64(h[24:], uint64(len(out)))
		le.PutUint64(h[32:], uint64(len(s.data)))
		le.PutUint32(h[40:], s.link)
		table = append(table, h...)
		out = append(out, s.data...)
	}
	le.PutUint64(out[40:], uint64(len(out)))
	le.PutUint16(out[60:], uint16(len(sections)))
	le.PutUint16(out[62:], uint16(len(sections)-1))
	return append(out, table...)
}

// Program returns a program or library that asks for an interpreter (none for "")
// and for libraries.
func Program(interpreter string, libraries ...string) []byte {
	if interpreter == "" && len(libraries) == 0 {
		return object(elf.ET_EXEC, "")
	}
	le := binary.LittleEndian
	text := []byte{0}
	var dynamic []byte
	for _, l := range libraries {
		dynamic = le.AppendUint64(dynamic, uint64(elf.DT_NEEDED))
		dynamic = le.AppendUint64(dynamic, uint64(len(text)))
		text = append(text, l+"\x00"...)
	}
	dynamic = append(dynamic, make([]byte, 16)...)
	return object(elf.ET_DYN, interpreter,
		section{name: ".dynamic", kind: elf.SHT_DYNAMIC, link: 2, data: dynamic},
		section{name: ".dynstr", kind: elf.SHT_STRTAB, data: text})
}

// Module returns a kernel module that says this of itself, for example
// "depends=dm-bufio".
func Module(info ...string) []byte {
	return object(elf.ET_REL, "", section{name: ".modinfo", kind: elf.SHT_PROGBITS, data: []byte(strings.Join(info, "\x00") + "\x00")})
}
