package boot

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// Edition is a generation of OVMF, by edk2's stable tags. What firmware
// measures, and what it does to a command line, changes between them. Only
// those whose logs were seen are here; a file does not tell which it is.
type Edition string

// The editions that are known.
const (
	Stable202211 Edition = "202211"
	Stable202502 Edition = "202502"
	Stable202608 Edition = "202608"
)

// ParseEdition reads an edition, with or without the prefix of edk2's tags.
func ParseEdition(s string) (Edition, error) {
	e := Edition(strings.TrimPrefix(s, "edk2-stable"))
	if !slices.Contains([]Edition{Stable202211, Stable202502, Stable202608}, e) {
		return "", fmt.Errorf("edition %q of OVMF is not known: want %s, %s or %s, the nearest that is not newer than the firmware",
			s, Stable202211, Stable202502, Stable202608)
	}
	return e, nil
}

// measuresACPI reports whether a TPM sees the tables that QEMU makes. In a TD
// all editions measure them.
func (e Edition) measuresACPI() bool { return e != Stable202211 }

// measuresSMBIOS reports whether SMBIOS tables are measured.
func (e Edition) measuresSMBIOS() bool { return e == Stable202608 }

// measuresConfiguration reports whether items of fw_cfg are measured in a TD.
func (e Edition) measuresConfiguration() bool { return e == Stable202608 }

// commandLine returns what a kernel that QEMU loads finds as its command line.
func (e Edition) commandLine(given string, initrd bool) string {
	switch {
	case !initrd:
		return given
	case e == Stable202608:
		return "initrd=initrd " + given
	}
	return given + " initrd=initrd"
}

// empty is what a blank variable store leads to.
func (e Edition) empty() SecureBoot {
	if e == Stable202211 {
		return SecureBoot{SecureBoot: []byte{0}}
	}
	return SecureBoot{}
}

// Applications in OVMF's main firmware volume.
var (
	mainVolume = efi.NewGUID(0x7cb8bdc9, 0xf8eb, 0x4f34, 0xaaea3ee4af6516a1)
	uiApp      = efi.NewGUID(0x462caa21, 0x7614, 0x4503, 0x836e8ab6f4662331)
	bootMenu   = efi.NewGUID(0xeec25bdc, 0x67f2, 0x4d95, 0xb1d5f81b2039d11d)
)

// bootVariables are the boot options of a machine with a blank variable store
// and no device to boot from, BootOrder first. Their values are hashed without
// their names.
func (e Edition) bootVariables() []Measured {
	const (
		active, hidden, application = 1, 8, 0x100
	)
	options := [][]byte{efi.LoadOption(active|hidden|application, "UiApp", efi.VolumeFile(mainVolume, uiApp), nil)}
	if e == Stable202608 {
		options = [][]byte{
			efi.LoadOption(active|hidden|application, "BootManagerMenuApp", efi.VolumeFile(mainVolume, bootMenu), nil),
			efi.LoadOption(active|application, "EFI Firmware Setup", efi.VolumeFile(mainVolume, uiApp), nil),
		}
	}
	var order []byte
	for i := range options {
		order = binary.LittleEndian.AppendUint16(order, uint16(i))
	}
	out := []Measured{{efi.VariableData(efi.GlobalVariable, "BootOrder", order), Bytes(order)}}
	for i, o := range options {
		out = append(out, Measured{efi.VariableData(efi.GlobalVariable, fmt.Sprintf("Boot%04X", i), o), Bytes(o)})
	}
	return out
}
