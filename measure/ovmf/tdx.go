package ovmf

import (
	"encoding/binary"
	"fmt"
)

// TDXType is the type of a section of the TDX metadata (measure.md b.1).
type TDXType uint32

// The section types of the TDVF design guide, section 11.
const (
	TDXCode      TDXType = 0 // BFV, the boot firmware volume
	TDXVariables TDXType = 1 // CFV, the configuration firmware volume
	TDXHOB       TDXType = 2 // the TD HOB, which the VMM writes
	TDXTempMem   TDXType = 3
	TDXPermMem   TDXType = 4
	TDXPayload   TDXType = 5
	TDXParameter TDXType = 6
)

// TDXSection is a range of guest memory that exists when a TD starts.
type TDXSection struct {
	GPA, MemorySize uint64
	Type            TDXType
	Extend          bool   // its contents are part of MRTD
	Augmented       bool   // its pages are added later, and are no part of MRTD
	Data            []byte // the raw bytes; the rest of its memory is zero
}

const (
	tdxAttrExtend = 1 << 0
	tdxAttrAug    = 1 << 1
	maxTDXPages   = 1 << 18
)

// TDXSections returns the sections of the TDX metadata in their order, which
// is the order in which they are measured.
func (f *Firmware) TDXSections() ([]TDXSection, error) {
	data, ok := f.Entry(guidTDXMetadata)
	if !ok || len(data) < 4 {
		return nil, fmt.Errorf("the firmware has no TDX metadata")
	}
	b, err := f.descriptor("TDX metadata", "TDVF", binary.LittleEndian.Uint32(data[len(data)-4:]), 32)
	if err != nil {
		return nil, err
	}
	out := make([]TDXSection, 0, len(b)/32)
	pages := uint64(0)
	for ; len(b) > 0; b = b[32:] {
		s, err := f.tdxSection(b)
		if err != nil {
			return nil, err
		}
		if pages += s.MemorySize / 4096; pages > maxTDXPages {
			return nil, fmt.Errorf("%w: the TDX sections have more than %d pages", ErrFirmware, maxTDXPages)
		}
		out = append(out, s)
	}
	return out, nil
}

func (f *Firmware) tdxSection(b []byte) (TDXSection, error) {
	le := binary.LittleEndian
	offset, size, attributes := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[28:])
	s := TDXSection{
		GPA: le.Uint64(b[8:]), MemorySize: le.Uint64(b[16:]), Type: TDXType(le.Uint32(b[24:])),
		Extend: attributes&tdxAttrExtend != 0, Augmented: attributes&tdxAttrAug != 0,
	}
	switch {
	case offset+size > uint64(len(f.raw)):
		return s, fmt.Errorf("%w: TDX section at %#x+%#x of a file of %#x bytes", ErrFirmware, offset, size, len(f.raw))
	case s.Type > TDXParameter:
		return s, fmt.Errorf("%w: TDX section of unknown type %d", ErrFirmware, s.Type)
	case attributes&^(tdxAttrExtend|tdxAttrAug) != 0:
		return s, fmt.Errorf("%w: TDX section with unknown attributes %#x", ErrFirmware, attributes)
	case s.GPA%4096 != 0 || s.MemorySize%4096 != 0 || s.GPA+s.MemorySize < s.GPA || s.MemorySize/4096 > maxTDXPages:
		return s, fmt.Errorf("%w: TDX section %#x+%#x is not made of pages", ErrFirmware, s.GPA, s.MemorySize)
	case size > s.MemorySize:
		return s, fmt.Errorf("%w: TDX section of %#x bytes in %#x bytes of memory", ErrFirmware, size, s.MemorySize)
	}
	s.Data = f.raw[offset : offset+size]
	return s, nil
}
