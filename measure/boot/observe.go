package boot

import (
	"bytes"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Observe fills in what cannot be computed from the log of a boot of the same
// machine with the same firmware: the firmware's version and volumes, ACPI and
// SMBIOS tables, boot options. What was given is kept.
//
// A prediction that rests on this trusts that boot: it finds what changed since,
// not what was wrong already.
func (m *Machine) Observe(l *eventlog.Log) {
	var volumes, acpi, variables, configuration []Measured
	for _, e := range l.Events {
		seen := Measured{e.Data, Known(len(e.Data), e.Digests)}
		switch e.Type {
		case eventlog.SCRTMVersion:
			if m.Version == nil {
				m.Version = &seen
			}
		case eventlog.EFIPlatformFirmwareBlob:
			volumes = append(volumes, seen)
		case eventlog.PlatformConfigFlags:
			if bytes.HasPrefix(e.Data, []byte(configurationLabel)) {
				configuration = append(configuration, seen)
			} else {
				acpi = append(acpi, seen)
			}
		case eventlog.EFIHandoffTables:
			if m.SMBIOS == nil {
				m.SMBIOS = &seen
			}
		case eventlog.EFIVariableBoot:
			variables = append(variables, seen)
		default:
		}
	}
	if m.Volumes == nil {
		m.Volumes = volumes
	}
	if m.ACPI == nil {
		m.ACPI = acpi
	}
	if m.Configuration == nil {
		m.Configuration = configuration
	}
	if m.BootVariables == nil {
		m.BootVariables = variables
	}
}
