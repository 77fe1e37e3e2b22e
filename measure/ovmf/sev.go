package ovmf

import (
	"encoding/binary"
	"fmt"
)

// SEVType is the type of a section of the SEV metadata (measure.md a.3).
type SEVType uint32

// The section types that OVMF and COCONUT-SVSM write.
const (
	SEVMemory       SEVType = 1 // memory that the firmware uses before it can accept more
	SEVSecrets      SEVType = 2 // the secrets page
	SEVCPUID        SEVType = 3 // the CPUID page
	SEVSVSMCallArea SEVType = 4 // the SVSM calling area
	SEVKernelHashes SEVType = 0x10
)

// SEVSection is a range of guest memory with a meaning for the launch.
type SEVSection struct {
	GPA, Size uint32
	Type      SEVType
}

// maxSEVPages bounds what a prediction hashes for one firmware: 1 GiB.
const maxSEVPages = 1 << 18

// SEVSections returns the sections of the SEV metadata in their order, which
// is the order in which they are measured. Sections may be empty.
func (f *Firmware) SEVSections() ([]SEVSection, error) {
	distance, err := f.word(guidSEVMetadata, "SEV metadata")
	if err != nil {
		return nil, err
	}
	b, err := f.descriptor("SEV metadata", "ASEV", distance, 12)
	if err != nil {
		return nil, err
	}
	out := make([]SEVSection, 0, len(b)/12)
	pages := uint64(0)
	for ; len(b) > 0; b = b[12:] {
		s := SEVSection{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), SEVType(binary.LittleEndian.Uint32(b[8:]))}
		pages += uint64(s.Size) / 4096
		switch {
		case s.GPA%4096 != 0 || s.Size%4096 != 0:
			return nil, fmt.Errorf("%w: SEV section %#x+%#x is not made of pages", ErrFirmware, s.GPA, s.Size)
		case s.Type < SEVMemory || s.Type > SEVSVSMCallArea && s.Type != SEVKernelHashes:
			return nil, fmt.Errorf("%w: SEV section of unknown type %d", ErrFirmware, s.Type)
		case pages > maxSEVPages:
			return nil, fmt.Errorf("%w: the SEV sections have more than %d pages", ErrFirmware, maxSEVPages)
		}
		out = append(out, s)
	}
	return out, nil
}
