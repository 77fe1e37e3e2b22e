package eventlog

import "fmt"

// EventType is the type of an event (TCG PC Client Platform Firmware Profile,
// section 10.4.1).
type EventType uint32

// The event types that have a name.
const (
	PrebootCert          EventType = 0x00000000
	PostCode             EventType = 0x00000001
	Unused               EventType = 0x00000002
	NoAction             EventType = 0x00000003
	Separator            EventType = 0x00000004
	Action               EventType = 0x00000005
	EventTag             EventType = 0x00000006
	SCRTMContents        EventType = 0x00000007
	SCRTMVersion         EventType = 0x00000008
	CPUMicrocode         EventType = 0x00000009
	PlatformConfigFlags  EventType = 0x0000000a
	TableOfDevices       EventType = 0x0000000b
	CompactHash          EventType = 0x0000000c
	IPL                  EventType = 0x0000000d
	IPLPartitionData     EventType = 0x0000000e
	NonHostCode          EventType = 0x0000000f
	NonHostConfig        EventType = 0x00000010
	NonHostInfo          EventType = 0x00000011
	OmitBootDeviceEvents EventType = 0x00000012

	EFIEventBase               EventType = 0x80000000
	EFIVariableDriverConfig    EventType = 0x80000001
	EFIVariableBoot            EventType = 0x80000002
	EFIBootServicesApplication EventType = 0x80000003
	EFIBootServicesDriver      EventType = 0x80000004
	EFIRuntimeServicesDriver   EventType = 0x80000005
	EFIGPTEvent                EventType = 0x80000006
	EFIAction                  EventType = 0x80000007
	EFIPlatformFirmwareBlob    EventType = 0x80000008
	EFIHandoffTables           EventType = 0x80000009
	EFIPlatformFirmwareBlob2   EventType = 0x8000000a
	EFIHandoffTables2          EventType = 0x8000000b
	EFIVariableBoot2           EventType = 0x8000000c
	EFIHCRTMEvent              EventType = 0x80000010
	EFIVariableAuthority       EventType = 0x800000e0
	EFISPDMFirmwareBlob        EventType = 0x800000e1
	EFISPDMFirmwareConfig      EventType = 0x800000e2
)

var typeNames = map[EventType]string{
	PrebootCert:          "EV_PREBOOT_CERT",
	PostCode:             "EV_POST_CODE",
	Unused:               "EV_UNUSED",
	NoAction:             "EV_NO_ACTION",
	Separator:            "EV_SEPARATOR",
	Action:               "EV_ACTION",
	EventTag:             "EV_EVENT_TAG",
	SCRTMContents:        "EV_S_CRTM_CONTENTS",
	SCRTMVersion:         "EV_S_CRTM_VERSION",
	CPUMicrocode:         "EV_CPU_MICROCODE",
	PlatformConfigFlags:  "EV_PLATFORM_CONFIG_FLAGS",
	TableOfDevices:       "EV_TABLE_OF_DEVICES",
	CompactHash:          "EV_COMPACT_HASH",
	IPL:                  "EV_IPL",
	IPLPartitionData:     "EV_IPL_PARTITION_DATA",
	NonHostCode:          "EV_NONHOST_CODE",
	NonHostConfig:        "EV_NONHOST_CONFIG",
	NonHostInfo:          "EV_NONHOST_INFO",
	OmitBootDeviceEvents: "EV_OMIT_BOOT_DEVICE_EVENTS",

	EFIEventBase:               "EV_EFI_EVENT_BASE",
	EFIVariableDriverConfig:    "EV_EFI_VARIABLE_DRIVER_CONFIG",
	EFIVariableBoot:            "EV_EFI_VARIABLE_BOOT",
	EFIBootServicesApplication: "EV_EFI_BOOT_SERVICES_APPLICATION",
	EFIBootServicesDriver:      "EV_EFI_BOOT_SERVICES_DRIVER",
	EFIRuntimeServicesDriver:   "EV_EFI_RUNTIME_SERVICES_DRIVER",
	EFIGPTEvent:                "EV_EFI_GPT_EVENT",
	EFIAction:                  "EV_EFI_ACTION",
	EFIPlatformFirmwareBlob:    "EV_EFI_PLATFORM_FIRMWARE_BLOB",
	EFIHandoffTables:           "EV_EFI_HANDOFF_TABLES",
	EFIPlatformFirmwareBlob2:   "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
	EFIHandoffTables2:          "EV_EFI_HANDOFF_TABLES2",
	EFIVariableBoot2:           "EV_EFI_VARIABLE_BOOT2",
	EFIHCRTMEvent:              "EV_EFI_HCRTM_EVENT",
	EFIVariableAuthority:       "EV_EFI_VARIABLE_AUTHORITY",
	EFISPDMFirmwareBlob:        "EV_EFI_SPDM_FIRMWARE_BLOB",
	EFISPDMFirmwareConfig:      "EV_EFI_SPDM_FIRMWARE_CONFIG",
}

// String returns the name of the type, for example "EV_SEPARATOR", or its
// number where it has none.
func (t EventType) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("0x%08x", uint32(t))
}

// isVariable reports whether events of this type carry a UEFI_VARIABLE_DATA.
func (t EventType) isVariable() bool {
	switch t {
	case EFIVariableDriverConfig, EFIVariableBoot, EFIVariableBoot2, EFIVariableAuthority:
		return true
	default:
		return false
	}
}
