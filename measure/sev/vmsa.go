package sev

import (
	"encoding/binary"
	"fmt"
)

// VMM is who starts the virtual machine. Each has its own idea of the state in
// which a processor starts, and that state is measured (measure.md a.5).
type VMM string

// The VMMs whose initial state is known.
const (
	QEMU VMM = "qemu"
	EC2  VMM = "ec2"
	// EC2Legacy is what was believed of EC2 before April 2026 and what some
	// tools still compute.
	EC2Legacy VMM = "ec2-legacy"
	GCE       VMM = "gce"
	KRUN      VMM = "krun"
)

// FPU is the initial floating-point state under QEMU, which depends on the
// host's kernel.
type FPU string

// The two states. Only [QEMU] tells them apart; the others start with zeros.
const (
	FPUReset FPU = ""     // MXCSR 0x1f80, FCW 0x37f: Linux 6.10 and later
	FPUZero  FPU = "zero" // both zero: Linux before 6.10
)

// PageSize is the size of a VMSA in bytes.
const PageSize = 4096

// CPU is what determines the initial state of virtual processors.
type CPU struct {
	VMM       VMM
	Signature uint32 // CPUID leaf 1 EAX; see [Signature]
	Features  uint64 // SEV_FEATURES; zero for SEV-ES
	FPU       FPU
}

const bootEIP = 0xffff_fff0

// segment is a segment register in the VMSA.
type segment struct {
	selector, attributes uint16
	limit                uint32
	base                 uint64
}

// Offsets in the VMSA (AMD APM volume 2, table B-4).
const (
	offES, offCS, offSS, offDS = 0x00, 0x10, 0x20, 0x30
	offFS, offGS, offGDTR      = 0x40, 0x50, 0x60
	offLDTR, offIDTR, offTR    = 0x70, 0x80, 0x90
	offEFER, offCR4, offCR0    = 0xd0, 0x148, 0x158
	offDR7, offDR6, offRFLAGS  = 0x160, 0x168, 0x170
	offRIP, offRSP, offPAT     = 0x178, 0x1d8, 0x268
	offRDX, offRBP, offRSI     = 0x310, 0x328, 0x330
	offFeatures, offXCR0       = 0x3b0, 0x3e8
	offMXCSR, offFCW           = 0x408, 0x410
)

type vmsa [PageSize]byte

func (v *vmsa) u64(offset int, x uint64) { binary.LittleEndian.PutUint64(v[offset:], x) }

func (v *vmsa) segment(offset int, s segment) {
	b := v[offset:]
	binary.LittleEndian.PutUint16(b, s.selector)
	binary.LittleEndian.PutUint16(b[2:], s.attributes)
	binary.LittleEndian.PutUint32(b[4:], s.limit)
	binary.LittleEndian.PutUint64(b[8:], s.base)
}

func (v *vmsa) fpu(mxcsr uint32, fcw uint16) {
	binary.LittleEndian.PutUint32(v[offMXCSR:], mxcsr)
	binary.LittleEndian.PutUint16(v[offFCW:], fcw)
}

// attributes are those of the segments in which VMMs differ.
type attributes struct{ cs, ss, tr uint16 }

// VMSA returns the page of a processor. The boot processor starts at the reset
// vector, an application processor at the address in the firmware's reset block.
func (c CPU) VMSA(application bool, resetAddress uint32) (page [PageSize]byte, err error) {
	v := (*vmsa)(&page)
	attr, pat, rdx := attributes{0x9b, 0x93, 0x8b}, uint64(0x0007040600070406), uint64(c.Signature)
	switch c.VMM {
	case QEMU:
		if c.FPU == FPUReset {
			v.fpu(0x1f80, 0x37f)
		}
	case EC2, EC2Legacy:
		attr = attributes{0x9a, 0x92, 0x83}
		if application {
			attr.cs = 0x9b
		}
		if rdx = 0; c.VMM == EC2 {
			rdx = 0x600
		}
	case GCE:
		pat, rdx = 0x00070106, 0x600
	case KRUN:
		attr, rdx = attributes{0x9a, 0x92, 0x83}, 0
		if !application {
			v.u64(offRSI, 0x7000)
			v.u64(offRBP, 0x8ff0)
			v.u64(offRSP, 0x8ff0)
		}
	default:
		return page, fmt.Errorf("the initial processor state of VMM %q is not known", c.VMM)
	}
	eip := uint32(bootEIP)
	if application {
		eip = resetAddress
	}
	v.realMode(attr, eip)
	v.u64(offPAT, pat)
	v.u64(offRDX, rdx)
	v.u64(offFeatures, c.Features)
	return page, nil
}

// realMode sets what all VMMs that start OVMF have in common.
func (v *vmsa) realMode(attr attributes, eip uint32) {
	data := segment{attributes: 0x93, limit: 0xffff}
	for _, offset := range []int{offES, offDS, offFS, offGS} {
		v.segment(offset, data)
	}
	v.segment(offSS, segment{attributes: attr.ss, limit: 0xffff})
	v.segment(offCS, segment{0xf000, attr.cs, 0xffff, uint64(eip & 0xffff_0000)})
	v.segment(offGDTR, segment{limit: 0xffff})
	v.segment(offIDTR, segment{limit: 0xffff})
	v.segment(offLDTR, segment{attributes: 0x82, limit: 0xffff})
	v.segment(offTR, segment{attributes: attr.tr, limit: 0xffff})
	v.u64(offCR0, 0x10)
	v.u64(offRIP, uint64(eip&0xffff))
	v.controls()
}

// controls sets the registers that have the same value everywhere.
func (v *vmsa) controls() {
	v.u64(offEFER, 0x1000)
	v.u64(offCR4, 0x40)
	v.u64(offDR7, 0x400)
	v.u64(offDR6, 0xffff_0ff0)
	v.u64(offRFLAGS, 2)
	v.u64(offXCR0, 1)
}

// SVSMVMSA returns the page of a processor that starts COCONUT-SVSM: flat
// 32-bit protected mode at an entry point (measure.md a.8). All processors
// have the same.
func SVSMVMSA(entry uint64, f FPU) (page [PageSize]byte) {
	v := (*vmsa)(&page)
	for _, offset := range []int{offES, offSS, offDS, offFS} {
		v.segment(offset, segment{16, 0xc93, 0xffff_ffff, 0})
	}
	v.segment(offCS, segment{8, 0xc9b, 0xffff_ffff, 0})
	v.segment(offGS, segment{attributes: 0x93, limit: 0xffff})
	v.segment(offGDTR, segment{limit: 0xffff})
	v.segment(offIDTR, segment{limit: 0xffff})
	v.segment(offLDTR, segment{attributes: 0x82, limit: 0xffff})
	v.segment(offTR, segment{attributes: 0x8b, limit: 0xffff})
	v.u64(offCR0, 0x11)
	v.u64(offRIP, entry)
	v.u64(offPAT, 0x0007040600070406)
	v.u64(offFeatures, 1)
	v.controls()
	if f == FPUReset {
		v.fpu(0x1f80, 0x37f)
	}
	return page
}
