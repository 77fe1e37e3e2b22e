package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets of the setup header (Linux, Documentation/arch/x86/boot.rst).
const (
	setupMagic      = 0x202 // "HdrS"
	setupProtocol   = 0x206
	setupLoader     = 0x210
	setupLoadFlags  = 0x211
	setupInitrd     = 0x218
	setupInitrdSize = 0x21c
	setupHeapEnd    = 0x224
	setupCmdline    = 0x228
	setupInitrdMax  = 0x22c
	setupXLoadFlags = 0x236
)

// SetupEnd is where the part of a kernel ends that [PatchKernel] may change, in
// bytes.
const SetupEnd = 0x238

const (
	acpiReserve = 0x28000 // bytes that QEMU keeps for ACPI below the end of low memory
	lowMemory   = 0x8000_0000
	lowLimit    = 0xb000_0000 // memory below this is all low; see measure.md b.6
)

// PatchKernel returns the kernel as QEMU before 10.2 hands it to the firmware:
// with a setup header that says who loads it, where the initrd lies and how
// large it is (measure.md b.6). Memory is that of the machine in bytes; many
// sizes lead to the same header. QEMU 10.2 leaves the header alone for
// confidential guests only.
func PatchKernel(kernel []byte, initrdSize int, memory uint64) ([]byte, error) {
	le := binary.LittleEndian
	if len(kernel) < SetupEnd || !bytes.Equal(kernel[setupMagic:setupMagic+4], []byte("HdrS")) {
		return nil, errors.New("the kernel has no setup header: not a bzImage for x86")
	}
	protocol := le.Uint16(kernel[setupProtocol:])
	if protocol < 0x202 {
		return nil, fmt.Errorf("the kernel's boot protocol %#x is too old", protocol)
	}
	if memory == 0 {
		return nil, errors.New("the size of memory is not given, and the patched setup header depends on it")
	}
	out := bytes.Clone(kernel)
	out[setupLoader] = 0xb0
	out[setupLoadFlags] |= 0x80
	le.PutUint32(out[setupHeapEnd:], 0xfe00)
	le.PutUint32(out[setupCmdline:], 0x20000)
	if initrdSize == 0 {
		return out, nil
	}
	highest := uint64(0x37ff_ffff)
	switch {
	case protocol >= 0x20c && kernel[setupXLoadFlags]&(1<<1) != 0:
		highest = 0xffff_ffff
	case protocol >= 0x203:
		highest = uint64(le.Uint32(kernel[setupInitrdMax:]))
	}
	low := uint64(lowMemory)
	if memory < lowLimit {
		low = memory
	}
	if low <= acpiReserve {
		return nil, fmt.Errorf("%d bytes of memory are too few", memory)
	}
	highest = min(highest, low-acpiReserve-1)
	if uint64(initrdSize) > highest {
		return nil, errors.New("the initrd does not fit into low memory")
	}
	le.PutUint32(out[setupInitrd:], uint32((highest-uint64(initrdSize))&^0xfff))
	le.PutUint32(out[setupInitrdSize:], uint32(initrdSize))
	return out, nil
}
