package snp

import "fmt"

// Generation is a generation of EPYC processors. AMD certifies each under a
// root of its own.
type Generation string

// The generations that exist with SNP, in the spelling of AMD's certificates.
const (
	Milan Generation = "Milan"
	Genoa Generation = "Genoa"
	Turin Generation = "Turin"
)

// Generations lists all of them.
func Generations() []Generation { return []Generation{Milan, Genoa, Turin} }

// ParseGeneration accepts the exact names.
func ParseGeneration(name string) (Generation, error) {
	for _, g := range Generations() {
		if string(g) == name {
			return g, nil
		}
	}
	return "", fmt.Errorf("%q is not one of Milan, Genoa, Turin", name)
}

const (
	familyZen3 = 0x19 // and Zen 4
	familyZen5 = 0x1a
)

// generationOf maps CPUID family and model (kbs-protocol 16.2).
func generationOf(family, model uint8) (Generation, error) {
	switch {
	case family == familyZen3 && model <= 0x0f:
		return Milan, nil
	case family == familyZen3 && (model >= 0x10 && model <= 0x1f || model >= 0xa0 && model <= 0xaf):
		return Genoa, nil
	case family == familyZen5 && model <= 0x11:
		return Turin, nil
	}
	return "", fmt.Errorf("processor family %#x model %#x is not known", family, model)
}

// HardwareID is what certificates and AMD's service call a chip: its id, or on
// Turin the first eight bytes of it.
func (g Generation) HardwareID(chip [64]byte) []byte {
	if g == Turin {
		return chip[:8]
	}
	return chip[:]
}

// TCB is a TCB_VERSION as it stands in the report: the security version
// numbers of the firmware's parts. Where each lies depends on the generation.
type TCB [8]byte

// SVNs are the security version numbers in a [TCB]. FMC exists on Turin only.
type SVNs struct {
	FMC        *uint8 `json:"fmc"`
	Bootloader uint8  `json:"bootloader"`
	TEE        uint8  `json:"tee"`
	SNP        uint8  `json:"snp"`
	Microcode  uint8  `json:"microcode"`
}

// SVNs takes the TCB apart (kbs-protocol 16.2).
func (t TCB) SVNs(g Generation) SVNs { return t.split(g == Turin) }

// TCB puts the numbers where a generation has them.
func (s SVNs) TCB(g Generation) TCB { return s.join(g == Turin) }

func (t TCB) split(turin bool) SVNs {
	if turin {
		return SVNs{FMC: &t[0], Bootloader: t[1], TEE: t[2], SNP: t[3], Microcode: t[7]}
	}
	return SVNs{Bootloader: t[0], TEE: t[1], SNP: t[6], Microcode: t[7]}
}

// clean reports whether the reserved bytes are zero.
func (t TCB) clean(turin bool) bool { return t == t.split(turin).join(turin) }

func (s SVNs) join(turin bool) TCB {
	if !turin {
		return TCB{0: s.Bootloader, 1: s.TEE, 6: s.SNP, 7: s.Microcode}
	}
	t := TCB{1: s.Bootloader, 2: s.TEE, 3: s.SNP, 7: s.Microcode}
	if s.FMC != nil {
		t[0] = *s.FMC
	}
	return t
}

// String gives the numbers under the names that AMD's tools use.
func (s SVNs) String() string {
	text := fmt.Sprintf("bootloader %d, tee %d, snp %d, microcode %d", s.Bootloader, s.TEE, s.SNP, s.Microcode)
	if s.FMC != nil {
		text = fmt.Sprintf("fmc %d, ", *s.FMC) + text
	}
	return text
}

// atMost reports whether no part of s is newer than that of t.
func (s SVNs) atMost(t SVNs) bool {
	fmc := func(v SVNs) uint8 {
		if v.FMC == nil {
			return 0
		}
		return *v.FMC
	}
	return fmc(s) <= fmc(t) && s.Bootloader <= t.Bootloader && s.TEE <= t.TEE && s.SNP <= t.SNP && s.Microcode <= t.Microcode
}
