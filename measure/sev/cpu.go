package sev

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Signature returns leaf 1 EAX of CPUID for a processor of AMD.
func Signature(family, model, stepping uint8) uint32 {
	base, extended := uint32(family), uint32(0)
	if family > 0xf {
		base, extended = 0xf, uint32(family)-0xf
	}
	return extended<<20 | uint32(model>>4)<<16 | base<<8 | uint32(model&0xf)<<4 | uint32(stepping&0xf)
}

// models are the processor models of QEMU by their names in lower case.
var models = map[string]uint32{
	"epyc": Signature(23, 1, 2), "epyc-v1": Signature(23, 1, 2), "epyc-v2": Signature(23, 1, 2),
	"epyc-ibpb": Signature(23, 1, 2), "epyc-v3": Signature(23, 1, 2), "epyc-v4": Signature(23, 1, 2),
	"epyc-rome": Signature(23, 49, 0), "epyc-rome-v1": Signature(23, 49, 0), "epyc-rome-v2": Signature(23, 49, 0), "epyc-rome-v3": Signature(23, 49, 0),
	"epyc-milan": Signature(25, 1, 1), "epyc-milan-v1": Signature(25, 1, 1), "epyc-milan-v2": Signature(25, 1, 1),
	"epyc-genoa": Signature(25, 17, 0), "epyc-genoa-v1": Signature(25, 17, 0),
	"epyc-turin": Signature(26, 0, 0), "epyc-turin-v1": Signature(26, 0, 0),
}

// ParseCPU reads a processor model of QEMU (EPYC-v4) or a signature in
// hexadecimal (0x800f12).
func ParseCPU(s string) (uint32, error) {
	if sig, ok := models[strings.ToLower(s)]; ok {
		return sig, nil
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		if n, err := strconv.ParseUint(hex, 16, 32); err == nil {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("%q is neither a processor model (%s) nor a CPUID signature like 0x800f12", s, strings.Join(CPUs(), ", "))
}

// CPUs lists the models that [ParseCPU] knows.
func CPUs() []string { return slices.Sorted(maps.Keys(models)) }
