package eventlog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
)

// maxPathNodes is more than any device path has.
const maxPathNodes = 64

// DevicePaths returns the nodes of the device path in a UEFI_IMAGE_LOAD_EVENT
// as text, for example "Pci(0,3)" and "File(\EFI\BOOT\BOOTX64.EFI)", in the
// spelling of kbs-protocol 17. It is nil where there is none, or a broken one.
func (e Event) DevicePaths() []string {
	switch e.Type {
	case EFIBootServicesApplication, EFIBootServicesDriver, EFIRuntimeServicesDriver:
	default:
		return nil
	}
	r := newReader(e.Data)
	r.Take(24) // location, length and link address of the image in memory
	n := r.U64()
	if r.Err != nil || n != uint64(len(r.Buf)-r.At) {
		return nil
	}
	var out []string
	for range maxPathNodes {
		kind, sub, size := r.U8(), r.U8(), int(r.U16())
		if r.Err != nil || size < 4 {
			return nil
		}
		data := r.Take(size - 4)
		if r.Err != nil {
			return nil
		}
		if kind == 0x7f {
			if sub == 0xff {
				return out
			}
			continue
		}
		out = append(out, pathNode(kind, sub, data))
	}
	return nil
}

// pathNode spells one node (UEFI 2.11 section 10.3).
func pathNode(kind, sub uint8, data []byte) string {
	for _, f := range nodes {
		if f.kind == kind && f.sub == sub && len(data) >= f.size {
			return f.spell(data)
		}
	}
	return fmt.Sprintf("Path(%d,%d,%s)", kind, sub, hex.EncodeToString(data))
}

// nodes are those that have a spelling of their own. It is a table, since a log
// may have millions.
var nodes = []struct {
	kind, sub uint8
	size      int // the least
	spell     func(data []byte) string
}{
	{1, 1, 2, func(data []byte) string { return fmt.Sprintf("Pci(%d,%d)", data[0], data[1]) }},
	{2, 1, 8, acpiNode},
	{3, 5, 0, func([]byte) string { return "USB()" }},
	{3, 11, 0, func([]byte) string { return "Mac()" }},
	{3, 12, 0, func([]byte) string { return "IPv4()" }},
	{3, 21, 0, func([]byte) string { return "FibreEx()" }},
	{4, 1, 38, diskNode},
	{4, 3, 16, func(data []byte) string {
		return fmt.Sprintf("VenMedia(%s,%s)", guid(data), hex.EncodeToString(data[16:]))
	}},
	{4, 4, 0, func(data []byte) string { return "File(" + utf16Text(data) + ")" }},
	{5, 1, 0, func([]byte) string { return "BBS()" }},
}

// acpiNode spells an ACPI node with its compressed EISA id.
func acpiNode(data []byte) string {
	hid := binary.LittleEndian.Uint32(data)
	letter := func(shift uint) byte { return '@' + byte(hid>>shift&0x1f) } //nolint:gosec // five bits
	return fmt.Sprintf("ACPI(%c%c%c%04X,%d)", letter(10), letter(5), letter(0), hid>>16, binary.LittleEndian.Uint32(data[4:]))
}

func diskNode(data []byte) string {
	number, start, size := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint64(data[4:]), binary.LittleEndian.Uint64(data[12:])
	kind, id := "", hex.EncodeToString(data[20:36])
	switch data[37] {
	case 1:
		kind, id = "MBR", fmt.Sprintf("0x%08x", binary.LittleEndian.Uint32(data[20:]))
	case 2:
		kind, id = "GPT", guid(data[20:])
	}
	return fmt.Sprintf("HD(%d,%s,%s,0x%x,0x%x)", number, kind, id, start, size)
}

// guid spells the first 16 bytes as a GUID, whose first three groups are
// little endian.
func guid(b []byte) string {
	return strings.ToUpper(fmt.Sprintf("%08x-%04x-%04x-%x-%x",
		binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16]))
}

// utf16Text decodes UTF-16LE up to a NUL. A half character at the end is left
// out.
func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
