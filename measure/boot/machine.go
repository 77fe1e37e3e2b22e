package boot

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Machine is what determines the measurements of a boot: the firmware, what it
// is told about the machine, and what it starts. Exactly one of Direct and UKI
// is given.
type Machine struct {
	Edition Edition
	// SecureBoot is nil for a blank variable store.
	SecureBoot *SecureBoot

	// What cannot be computed from files; Observe takes it from the log of a
	// boot of the same machine.
	Version *Measured  // of the firmware, EV_S_CRTM_VERSION
	Volumes []Measured // firmware volumes as they are in memory when they are measured
	ACPI    []Measured // see [Tables]
	SMBIOS  *Measured
	// Configuration is what fw_cfg says of the machine, for firmware of a TD
	// that measures it: see [ConfigurationItem].
	Configuration []Measured
	// BootVariables is BootOrder and the options it names; nil is what the
	// edition makes of a blank variable store and no device.
	BootVariables []Measured

	Direct *Direct
	UKI    *Unified
	// PartitionTable is UEFI_GPT_DATA of the disk that a UKI was read from, nil
	// for a disk without one.
	PartitionTable []byte

	// InitData is the digest of the init-data document that the guest extends,
	// or nil.
	InitData []byte
	// IMA is what the kernel's IMA was built with. The zero value says nothing,
	// and PCR 10 is not known.
	IMA IMA
}

// Direct is a kernel that the VMM loads and the firmware starts.
type Direct struct {
	Kernel      *Content // the PE image as the firmware gets it: see [PatchKernel]
	KernelSize  int
	Initrd      *Content // nil for none
	CommandLine string   // as QEMU is told
}

// Tables returns the ACPI content of fw_cfg in the order of its measurement:
// etc/table-loader, etc/acpi/rsdp, etc/tpm/log where there is a TPM (nil for
// none) and etc/acpi/tables.
func Tables(loader, rsdp, tpmLog, tables []byte) []Measured {
	var out []Measured
	for _, b := range [][]byte{loader, rsdp, tpmLog, tables} {
		if b != nil {
			out = append(out, Measured{[]byte("ACPI DATA"), Bytes(b)})
		}
	}
	return out
}

// configurationLabel begins what a log shows of an item of fw_cfg.
const configurationLabel = "QEMU FW CFG\x00"

// ConfigurationItem is an item of fw_cfg as the firmware of a TD measures it
// (edk2, OvmfPkg/Library/QemuFwCfgLib/QemuFwCfgCacheInit.c). Of those that
// exist it measures, in this order: etc/extra-pci-roots, BootMenu,
// etc/boot-menu-wait, etc/reserved-memory-end, opt/ovmf/X-PciMmio64Mb and
// bootorder.
func ConfigurationItem(name string, contents []byte) Measured {
	const width = 56 // of a name
	data := make([]byte, len(configurationLabel)+width)
	copy(data[copy(data, configurationLabel):], name)
	return Measured{data, Bytes(contents)}
}

// ConfigurationItems are the items that are measured, in their order.
func ConfigurationItems() []string {
	return []string{"etc/extra-pci-roots", "BootMenu", "etc/boot-menu-wait", "etc/reserved-memory-end", "opt/ovmf/X-PciMmio64Mb", "bootorder"}
}

// ConfigurationEvents is what the firmware of a TD measures of fw_cfg.
func (m Machine) ConfigurationEvents() []Event {
	if !m.Edition.measuresConfiguration() {
		return nil
	}
	if m.Configuration == nil {
		return []Event{{PCR: 1, Type: eventlog.PlatformConfigFlags, Name: "boot configuration", Input: BootVariables,
			Missing: "what fw_cfg says of booting is not given"}}
	}
	var out []Event
	for _, c := range m.Configuration {
		name := strings.TrimRight(string(bytes.TrimPrefix(c.Data, []byte(configurationLabel))), "\x00")
		out = append(out, Event{PCR: 1, Type: eventlog.PlatformConfigFlags, Name: "fw_cfg " + name, Input: BootVariables, Data: c.Data, Content: c.Content})
	}
	return out
}

// check refuses a machine that could not be.
func (m Machine) check() error {
	if _, err := ParseEdition(string(m.Edition)); err != nil {
		return err
	}
	switch {
	case m.Direct == nil && m.UKI == nil:
		return errors.New("neither a kernel nor a unified kernel image is given")
	case m.Direct != nil && m.UKI != nil:
		return errors.New("both a kernel and a unified kernel image are given")
	case m.Direct != nil && m.PartitionTable != nil:
		return errors.New("a kernel that the VMM loads comes from no disk")
	}
	return nil
}

// Events returns what a TPM's registers 0 to 15 are extended by, in the order of
// the log.
func (m Machine) Events() ([]Event, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	out := m.firmware()
	out = append(out, m.SecureBootEvents()...)
	if m.Edition.measuresACPI() {
		out = append(out, m.ACPIEvents()...)
	}
	if m.Direct != nil {
		out = append(out, m.Direct.image())
	}
	out = append(out, m.OptionEvents()...)
	out = append(out, call)
	for pcr := range 7 {
		out = append(out, separator(pcr))
	}
	started, err := m.StartEvents()
	if err != nil {
		return nil, err
	}
	out = append(out, started...)
	out = append(out, m.initData()...)
	return append(out, m.IMA.events(out)...), nil
}

// firmware is what is measured of the firmware itself, into PCR 0.
func (m Machine) firmware() []Event {
	version := Event{PCR: 0, Type: eventlog.SCRTMVersion, Name: "firmware version", Input: Firmware}
	version.fill(m.Version, "the firmware's version is measured as only a log shows it (give the log of a boot)")
	out := []Event{version}
	if m.Volumes == nil {
		return append(out, Event{Type: eventlog.EFIPlatformFirmwareBlob, Name: "firmware volumes", Input: Firmware,
			Missing: "the firmware's volumes are measured as they are in memory (give the log of a boot)"})
	}
	for i, v := range m.Volumes {
		out = append(out, Event{Type: eventlog.EFIPlatformFirmwareBlob, Name: fmt.Sprintf("firmware volume %d", i), Input: Firmware, Data: v.Data, Content: v.Content})
	}
	return out
}

// fill takes over what was measured, or says why it is not known.
func (e *Event) fill(m *Measured, missing string) {
	if m == nil {
		e.Missing = missing
		return
	}
	e.Data, e.Content = m.Data, m.Content
}

// ACPIEvents is what is measured of the tables that QEMU makes.
func (m Machine) ACPIEvents() []Event {
	if m.ACPI == nil {
		return []Event{{PCR: 1, Type: eventlog.PlatformConfigFlags, Name: "ACPI tables", Input: ACPI, Missing: "the ACPI tables of the machine are not given"}}
	}
	var out []Event
	for i, t := range m.ACPI {
		name := fmt.Sprintf("ACPI data %d", i)
		if i == len(m.ACPI)-1 {
			name = "ACPI tables"
		}
		out = append(out, Event{PCR: 1, Type: eventlog.PlatformConfigFlags, Name: name, Input: ACPI, Data: t.Data, Content: t.Content})
	}
	return out
}

// OptionEvents is what is measured of the machine once its devices are known:
// SMBIOS tables, BootOrder and the options it names.
func (m Machine) OptionEvents() []Event {
	var out []Event
	if m.Edition.measuresSMBIOS() {
		e := Event{PCR: 1, Type: eventlog.EFIHandoffTables, Name: "SMBIOS tables", Input: SMBIOS}
		e.fill(m.SMBIOS, "the SMBIOS tables are not given (give the log of a boot)")
		out = append(out, e)
	}
	return append(out, m.bootVariables()...)
}

func (m Machine) bootVariables() []Event {
	variables := m.BootVariables
	if variables == nil && m.UKI != nil {
		return []Event{{PCR: 1, Type: eventlog.EFIVariableBoot, Name: "boot options", Input: BootVariables,
			Missing: "the boot options depend on the devices (give the log of a boot)"}}
	}
	if variables == nil {
		variables = m.Edition.bootVariables()
	}
	var out []Event
	for i, v := range variables {
		name := "BootOrder"
		if i > 0 {
			name = fmt.Sprintf("boot option %d", i)
		}
		out = append(out, Event{PCR: 1, Type: eventlog.EFIVariableBoot, Name: name, Input: BootVariables, Data: v.Data, Content: v.Content})
	}
	return out
}

var call = action(4, "Calling EFI Application from Boot Option")

// CallEvents is what a TD measures before it starts an image: the attempt, and
// a single separator.
func CallEvents(pcr int) (attempt, end Event) { return call, separator(pcr) }

func separator(pcr int) Event {
	b := make([]byte, 4)
	return Event{PCR: pcr, Type: eventlog.Separator, Name: "separator", Input: Fixed, Data: b, Content: Bytes(b)}
}

func action(pcr int, text string) Event {
	return Event{PCR: pcr, Type: eventlog.EFIAction, Name: text, Input: Fixed, Data: []byte(text), Content: Bytes([]byte(text))}
}
