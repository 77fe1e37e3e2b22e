package efi

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrPE says that a file is no PE image, or a broken one.
var ErrPE = errors.New("malformed PE image")

// MaxPE is the largest image that is read, in bytes.
const MaxPE = 1 << 30

// PE is a parsed PE image: an EFI application, a Linux kernel with an EFI stub
// or a unified kernel image.
type PE struct {
	raw      []byte
	sections []Section
	headers  int // SizeOfHeaders
	checksum int // offset of the checksum
	security int // offset of the directory entry of certificates, 0 for none
	certs    int // size of the certificates at the end
}

// Section is a section of a PE image.
type Section struct {
	Name         string
	VirtualSize  uint32
	offset, size uint32 // in the file
}

const (
	sectionHeader = 40
	maxSections   = 96 // as Windows' loader; edk2 has no limit
)

// ParsePE reads the headers of an image. The slice must not be changed
// afterwards. Source: Microsoft's PE format, and what edk2 makes of it when it
// measures (SecurityPkg, DxeTpm2MeasureBootLib).
func ParsePE(raw []byte) (*PE, error) {
	le := binary.LittleEndian
	if len(raw) < 0x40 || len(raw) > MaxPE || raw[0] != 'M' || raw[1] != 'Z' {
		return nil, fmt.Errorf("%w: no MZ header", ErrPE)
	}
	at := uint64(le.Uint32(raw[0x3c:]))
	const coff = 24 // signature and COFF header
	if at+coff > uint64(len(raw)) || !bytes.Equal(raw[at:at+4], []byte("PE\x00\x00")) {
		return nil, fmt.Errorf("%w: no PE header", ErrPE)
	}
	optional := int(at) + coff
	count, size := int(le.Uint16(raw[at+6:])), int(le.Uint16(raw[at+20:]))
	table := optional + size
	if count > maxSections || table+count*sectionHeader > len(raw) {
		return nil, fmt.Errorf("%w: %d sections do not fit", ErrPE, count)
	}
	p := &PE{raw: raw, checksum: optional + 64}
	if err := p.optionalHeader(optional, size); err != nil {
		return nil, err
	}
	if p.headers < table+count*sectionHeader || p.headers > len(raw) {
		return nil, fmt.Errorf("%w: headers of %d bytes", ErrPE, p.headers)
	}
	return p, p.readSections(raw[table : table+count*sectionHeader])
}

// optionalHeader reads the optional header of PE32 or PE32+.
func (p *PE) optionalHeader(at, size int) error {
	le := binary.LittleEndian
	if size < 68 {
		return fmt.Errorf("%w: optional header of %d bytes", ErrPE, size)
	}
	directories := 0
	switch magic := le.Uint16(p.raw[at:]); magic {
	case 0x10b:
		directories = 96
	case 0x20b:
		directories = 112
	default:
		return fmt.Errorf("%w: optional header of kind %#x", ErrPE, magic)
	}
	if size < directories {
		return fmt.Errorf("%w: optional header of %d bytes", ErrPE, size)
	}
	p.headers = int(le.Uint32(p.raw[at+60:]))
	const securityEntry, entry = 4, 8
	if n := le.Uint32(p.raw[at+directories-4:]); n <= securityEntry {
		return nil
	}
	end := directories + (securityEntry+1)*entry
	if size < end {
		return fmt.Errorf("%w: the directories do not fit into the optional header", ErrPE)
	}
	p.security = at + end - entry
	p.certs = int(le.Uint32(p.raw[p.security+4:]))
	return nil
}

// readSections reads the table of sections. Sections that overlap are refused,
// so that hashing costs no more than the file is long.
func (p *PE) readSections(table []byte) error {
	le := binary.LittleEndian
	total := uint64(p.headers)
	for ; len(table) > 0; table = table[sectionHeader:] {
		s := Section{
			Name:        string(bytes.TrimRight(table[:8], "\x00")),
			VirtualSize: le.Uint32(table[8:]), size: le.Uint32(table[16:]), offset: le.Uint32(table[20:]),
		}
		if s.size == 0 {
			s.offset = 0 // whatever it says: the section has nothing in the file
		}
		if uint64(s.offset)+uint64(s.size) > uint64(len(p.raw)) {
			return fmt.Errorf("%w: section %q reaches beyond the file", ErrPE, s.Name)
		}
		total += uint64(s.size)
		p.sections = append(p.sections, s)
	}
	if total+uint64(p.certs) > uint64(len(p.raw)) {
		return fmt.Errorf("%w: its parts are larger than the file", ErrPE)
	}
	return nil
}

// Size is the size of the file in bytes.
func (p *PE) Size() int { return len(p.raw) }

// Authenticode writes what the Authenticode digest covers: the file without its
// checksum, its directory entry of certificates and the certificates, sections
// in the order of the file.
func (p *PE) Authenticode(w io.Writer) error {
	parts := [][]byte{p.raw[:p.checksum]}
	if p.security == 0 {
		parts = append(parts, p.raw[p.checksum+4:p.headers])
	} else {
		parts = append(parts, p.raw[p.checksum+4:p.security], p.raw[p.security+8:p.headers])
	}
	ordered := slices.Clone(p.sections)
	slices.SortStableFunc(ordered, func(a, b Section) int { return cmp.Compare(a.offset, b.offset) })
	end := p.headers
	for _, s := range ordered {
		if s.size > 0 {
			parts = append(parts, p.raw[s.offset:s.offset+s.size])
			end += int(s.size)
		}
	}
	parts = append(parts, p.raw[end:len(p.raw)-p.certs])
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Certificates of a PE image (PE format, the attribute certificate table).
const (
	certificateHeader    = 8
	certificateRevision  = 0x0200
	certificatePKCS7     = 0x0002
	certificateAlignment = 8
	maxCertificates      = 16 // of an image
)

// Certificates returns the signatures on the image, PKCS#7 in DER, in the order
// of the file. Whether they are right, and whose they are, is package
// authenticode's to say.
func (p *PE) Certificates() ([][]byte, error) {
	if p.security == 0 || p.certs == 0 {
		return nil, nil
	}
	le := binary.LittleEndian
	if at := uint64(le.Uint32(p.raw[p.security:])); at+uint64(p.certs) != uint64(len(p.raw)) {
		return nil, fmt.Errorf("%w: the certificates are not at its end", ErrPE)
	}
	var out [][]byte
	for rest := p.raw[len(p.raw)-p.certs:]; len(rest) > 0; {
		if len(rest) < certificateHeader || len(out) == maxCertificates {
			return nil, fmt.Errorf("%w: certificates that do not end", ErrPE)
		}
		size := uint64(le.Uint32(rest))
		kind := le.Uint16(rest[6:])
		if size < certificateHeader || size > uint64(len(rest)) || le.Uint16(rest[4:]) != certificateRevision || kind != certificatePKCS7 {
			return nil, fmt.Errorf("%w: a certificate of %d bytes, kind %#x", ErrPE, size, kind)
		}
		out = append(out, rest[certificateHeader:size])
		rest = rest[min(uint64(len(rest)), (size+certificateAlignment-1)/certificateAlignment*certificateAlignment):]
	}
	return out, nil
}

// WithCertificate returns the image with a signature at its end, and without a
// checksum. The image must have none yet, and be as long as [PE.Signable] says.
func (p *PE) WithCertificate(pkcs7 []byte) ([]byte, error) {
	if err := p.Signable(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	size := certificateHeader + len(pkcs7)
	padded := (size + certificateAlignment - 1) / certificateAlignment * certificateAlignment
	out := make([]byte, len(p.raw), len(p.raw)+padded)
	copy(out, p.raw)
	le.PutUint32(out[p.checksum:], 0)
	le.PutUint32(out[p.security:], uint32(len(p.raw)))
	le.PutUint32(out[p.security+4:], uint32(padded))
	out = le.AppendUint32(out, uint32(padded))
	out = le.AppendUint16(out, certificateRevision)
	out = le.AppendUint16(out, certificatePKCS7)
	return append(append(out, pkcs7...), make([]byte, padded-size)...), nil
}

// Signable reports whether a signature can be put behind the image: it needs a
// place in its headers that points there, and a length that is a multiple of 8,
// for what fills it up is signed too.
func (p *PE) Signable() error {
	switch {
	case p.security == 0:
		return fmt.Errorf("%w: its headers have no place for a signature", ErrPE)
	case p.certs != 0:
		return fmt.Errorf("%w: it has a signature already", ErrPE)
	case len(p.raw)%certificateAlignment != 0:
		return fmt.Errorf("%w: its length of %d bytes is no multiple of %d", ErrPE, len(p.raw), certificateAlignment)
	}
	return nil
}

// Sections returns the sections in the order of their table.
func (p *PE) Sections() []Section { return p.sections }

// Contents returns the bytes of a section as they are in memory, without the
// padding of the file. It is nil if there is no such section, and must not be
// changed.
func (p *PE) Contents(name string) ([]byte, error) {
	var found []byte
	for _, s := range p.sections {
		switch {
		case s.Name != name:
			continue
		case found != nil:
			return nil, fmt.Errorf("%w: section %q is there twice", ErrPE, name)
		case s.VirtualSize > s.size:
			return nil, fmt.Errorf("%w: section %q has %d bytes in memory and %d in the file", ErrPE, name, s.VirtualSize, s.size)
		}
		found = p.raw[s.offset : s.offset+s.VirtualSize : s.offset+s.VirtualSize]
	}
	return found, nil
}
