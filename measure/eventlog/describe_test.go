package eventlog

import (
	"encoding/binary"
	"slices"
	"testing"
)

func variable(name string, data []byte) []byte {
	out := make([]byte, 16)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(name)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(data)))
	for _, c := range name {
		out = append(out, byte(c), 0)
	}
	return append(out, data...)
}

// imageLoad is the data of an EV_EFI_BOOT_SERVICES_APPLICATION.
func imageLoad(nodes ...[]byte) []byte {
	path := slices.Concat(nodes...)
	out := make([]byte, 24)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(path)))
	return append(out, path...)
}

func node(kind, sub byte, data ...byte) []byte {
	return append([]byte{kind, sub, byte(4 + len(data)), 0}, data...)
}

func TestDescribe(t *testing.T) {
	end := node(0x7f, 0xff)
	for want, e := range map[string]Event{
		"EV_SEPARATOR: 00000000":                               {Type: Separator, Data: make([]byte, 4)},
		"EV_EFI_ACTION: Exit Boot Services Invocation":         {Type: EFIAction, Data: []byte("Exit Boot Services Invocation")},
		"EV_EFI_VARIABLE_DRIVER_CONFIG: SecureBoot, 1 bytes":   {Type: EFIVariableDriverConfig, Data: variable("SecureBoot", []byte{1})},
		"EV_EFI_VARIABLE_BOOT: 40 bytes":                       {Type: EFIVariableBoot, Data: make([]byte, 40, 41)[:40]},
		"EV_IPL: grub_cmd linux":                               {Type: IPL, Data: []byte("grub_cmd linux\x00l")},
		"EV_IPL: .linux":                                       {Type: IPL, Data: []byte(".\x00l\x00i\x00n\x00u\x00x\x00\x00\x00")},
		"EV_EVENT_TAG: Linux initrd":                           {Type: EventTag, Data: []byte("\xec\x22\x3b\x8f\x0d\x00\x00\x00Linux initrd\x00")},
		"EV_EFI_HANDOFF_TABLES2: TdxTable":                     {Type: EFIHandoffTables2, Data: []byte("\x09TdxTable\x00rest")},
		"EV_PLATFORM_CONFIG_FLAGS: etc/acpi/rsdp":              {Type: PlatformConfigFlags, Data: []byte("etc/acpi/rsdp\x00")},
		"EV_NO_ACTION: StartupLocality 03":                     {Type: NoAction, Data: []byte(startupLocality + "\x03")},
		"EV_S_CRTM_VERSION: Google":                            {Type: SCRTMVersion, Data: []byte("G\x00o\x00o\x00g\x00l\x00e\x00\x00\x00")},
		"EV_NONHOST_INFO: GCE NonHostInfo":                     {Type: NonHostInfo, Data: []byte("GCE NonHostInfo\x00" + "0123456789abcdef")},
		"EV_POST_CODE: [31mred":                                {Type: PostCode, Data: []byte("\x1b[31mred\n")},
		"EV_POST_CODE: 9 bytes":                                {Type: PostCode, Data: []byte("\xffACPI\xff\xff\xff\xff")},
		"0x00000099: 10 bytes":                                 {Type: 0x99, Data: make([]byte, 10)},
		"EV_EFI_BOOT_SERVICES_APPLICATION: 33 bytes":           {Type: EFIBootServicesApplication, Data: append(imageLoad(), 1)},
		"EV_EFI_BOOT_SERVICES_DRIVER: Pci(1,2)/File(k)":        {Type: EFIBootServicesDriver, Data: imageLoad(node(1, 1, 1, 2), node(4, 4, 'k', 0, 0, 0), end)},
		"EV_EFI_BOOT_SERVICES_APPLICATION: Path(1,1,01)/BBS()": {Type: EFIBootServicesApplication, Data: imageLoad(node(1, 1, 1), node(0x7f, 1), node(5, 1), end)},
		"EV_EFI_BOOT_SERVICES_APPLICATION: Mac()/IPv4()/USB()/FibreEx()": {
			Type: EFIBootServicesApplication, Data: imageLoad(node(3, 11), node(3, 12), node(3, 5), node(3, 21), end),
		},
		"EV_EFI_BOOT_SERVICES_APPLICATION: HD(1,MBR,0x04030201,0x2,0x3)": {
			Type: EFIBootServicesApplication, Data: imageLoad(node(4, 1, slices.Concat([]byte{1, 0, 0, 0}, []byte{2}, make([]byte, 7), []byte{3}, make([]byte, 7), []byte{1, 2, 3, 4}, make([]byte, 12), []byte{1, 1})...), end),
		},
	} {
		if got := e.Describe(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Broken device paths are none.
// A log may have millions of nodes, and whoever sends it needs no key: each costs
// its text and no more.
func TestDevicePathIsCheap(t *testing.T) {
	data := imageLoad(slices.Concat(slices.Concat(slices.Repeat([][]byte{node(3, 5)}, maxPathNodes-1)...), node(0x7f, 0xff)))
	e := Event{Type: EFIBootServicesApplication, Data: data}
	if got := len(e.DevicePaths()); got != maxPathNodes-1 {
		t.Fatalf("%d nodes", got)
	}
	if n := testing.AllocsPerRun(10, func() { e.DevicePaths() }); n > maxPathNodes/2 {
		t.Errorf("%.0f allocations for %d nodes", n, maxPathNodes)
	}
}

func TestBrokenDevicePaths(t *testing.T) {
	for name, data := range map[string][]byte{
		"no end":       imageLoad(node(1, 1, 1, 2)),
		"a short node": imageLoad([]byte{1, 1, 3, 0}),
		"a long node":  imageLoad([]byte{1, 1, 9, 0}),
		"wrong length": append(imageLoad(node(0x7f, 0xff)), 0),
		"endless":      imageLoad(slices.Concat(slices.Repeat([][]byte{node(5, 1)}, maxPathNodes+1)...)),
		"nothing":      nil,
	} {
		if got := (Event{Type: EFIBootServicesApplication, Data: data}).DevicePaths(); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
