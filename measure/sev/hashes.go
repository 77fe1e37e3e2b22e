// Package sev is what all generations of AMD SEV measure alike: the table of
// kernel hashes and the first state of a virtual processor. It also predicts
// the launch digests of SEV and SEV-ES, which verify nothing here; SEV-SNP has
// a room of its own, package snp.
package sev

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// Hashes are the hashes by which a kernel that the VMM loads itself is
// measured (measure.md a.4). They are what a prediction needs of those files.
type Hashes struct {
	CommandLine, Initrd, Kernel [sha256.Size]byte
}

const maxCommandLine = 64 << 10 // bytes

// HashBoot hashes what QEMU gets by -kernel, -initrd and -append. The kernel is
// hashed as the file is, whatever QEMU changes in it later. No initrd is nil.
func HashBoot(kernel, initrd []byte, commandLine string) (Hashes, error) {
	if len(kernel) > 0 && len(commandLine) > maxCommandLine {
		return Hashes{}, fmt.Errorf("the command line is longer than %d bytes", maxCommandLine)
	}
	if strings.ContainsRune(commandLine, 0) {
		return Hashes{}, errors.New("the command line contains a NUL")
	}
	return Hashes{
		CommandLine: sha256.Sum256(append([]byte(commandLine), 0)),
		Initrd:      sha256.Sum256(initrd),
		Kernel:      sha256.Sum256(kernel),
	}, nil
}

// TableSize is the size of the table in bytes: 168, filled up to 176.
const TableSize = 176

// GUIDs of the table.
var (
	guidTable       = efi.NewGUID(0x9438d606, 0x4f22, 0x4cc9, 0xb479a793d411fd21)
	guidCommandLine = efi.NewGUID(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78e7714d36ab2a)
	guidInitrd      = efi.NewGUID(0x44baf731, 0x3a2f, 0x4bd7, 0x9af141e29169781d)
	guidKernel      = efi.NewGUID(0x4de79437, 0xabd2, 0x427f, 0xb835d5b172d2045b)
)

// Table returns the table as it lies in guest memory.
func (h Hashes) Table() (table [TableSize]byte) {
	const entry = 16 + 2 + sha256.Size
	b := table[:0]
	b = append(b, guidTable[:]...)
	b = binary.LittleEndian.AppendUint16(b, 16+2+3*entry)
	for _, e := range []struct {
		guid efi.GUID
		sum  [sha256.Size]byte
	}{
		{guidCommandLine, h.CommandLine}, {guidInitrd, h.Initrd}, {guidKernel, h.Kernel},
	} {
		b = append(b, e.guid[:]...)
		b = binary.LittleEndian.AppendUint16(b, entry)
		b = append(b, e.sum[:]...)
	}
	return table
}
