// Package ovmf reads what OVMF, the firmware of virtual machines, says about
// itself: the table of GUIDs at the end of its file, and through it the memory
// that AMD SEV and Intel TDX measure before a guest runs.
//
// The file is an input of a prediction, chosen by who builds the guest; it is
// read as if it were not: every offset is checked, nothing is allocated by a
// length in the file. Sources: measure.md a.2, a.3, b.1; edk2
// OvmfPkg/ResetVector.
package ovmf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// Limits of a firmware file in bytes. A tail of a file is accepted: for SEV-SNP
// the digest of the whole may be known instead.
const (
	MinSize = 4 << 10
	MaxSize = 64 << 20
)

// ErrFirmware says that a file is no OVMF firmware, or a broken one.
var ErrFirmware = errors.New("malformed firmware")

// The entries of the GUIDed table (measure.md a.2).
var (
	guidFooter       = efi.NewGUID(0x96b582de, 0x1fb2, 0x45f7, 0xbaeaa366c55a082d)
	guidResetBlock   = efi.NewGUID(0x00f771de, 0x1a7e, 0x4fcb, 0x890e68c77e2fb44e)
	guidHashTable    = efi.NewGUID(0x7255371f, 0x3a3b, 0x4b04, 0x927b1da6efa8d454)
	guidSEVMetadata  = efi.NewGUID(0xdc886566, 0x984a, 0x4798, 0xa75e5585a7bf67cc)
	guidLaunchSecret = efi.NewGUID(0x4c2eb361, 0x7d9b, 0x4cc3, 0x8081127c90d3d294)
	guidSVSMInfo     = efi.NewGUID(0xa789a612, 0x0597, 0x4c4b, 0xa49fcbb1fe9d1ddd)
	guidTDXMetadata  = efi.NewGUID(0xe47a6535, 0x984a, 0x4798, 0x865e4685a7bf8ec2)
)

// Firmware is a parsed firmware file. It does not change after Parse.
type Firmware struct {
	raw   []byte
	table []Entry
}

// Entry is one entry of the GUIDed table.
type Entry struct {
	GUID efi.GUID
	Data []byte
}

const (
	entryHead   = 2 + 16 // size and GUID, behind the data
	afterFooter = 32     // bytes from the end of the footer to the end of the file
)

// Parse reads the GUIDed table of a firmware file, or of its last 4 KiB at
// least. The slice must not be changed afterwards. Metadata behind the table is
// read by the methods that need it.
func Parse(raw []byte) (*Firmware, error) {
	if len(raw) < MinSize || len(raw) > MaxSize || len(raw)%MinSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes, must be a multiple of %d and at most %d", ErrFirmware, len(raw), MinSize, MaxSize)
	}
	f := &Firmware{raw: raw}
	end := len(raw) - afterFooter
	footer := raw[end-entryHead : end]
	if efi.GUID(footer[2:]) != guidFooter {
		return nil, fmt.Errorf("%w: no table of GUIDs at its end; is this OVMF?", ErrFirmware)
	}
	size := int(binary.LittleEndian.Uint16(footer))
	if size < entryHead || size > end {
		return nil, fmt.Errorf("%w: the table of GUIDs has %d bytes", ErrFirmware, size)
	}
	rest := raw[end-size : end-entryHead]
	for len(rest) >= entryHead {
		head := rest[len(rest)-entryHead:]
		n := int(binary.LittleEndian.Uint16(head))
		if n < entryHead || n > len(rest) {
			return nil, fmt.Errorf("%w: an entry of the table of GUIDs has %d bytes of %d", ErrFirmware, n, len(rest))
		}
		e := Entry{efi.GUID(head[2:]), rest[len(rest)-n : len(rest)-entryHead]}
		if _, twice := f.Entry(e.GUID); twice {
			return nil, fmt.Errorf("%w: entry %s is there twice", ErrFirmware, e.GUID)
		}
		f.table = append(f.table, e)
		rest = rest[:len(rest)-n]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes before the first entry of the table of GUIDs", ErrFirmware, len(rest))
	}
	return f, nil
}

// Raw returns the file, which must not be changed.
func (f *Firmware) Raw() []byte { return f.raw }

// Tail returns the end of the file that has the table and the SEV metadata. It
// parses to the same, without what TDX needs.
func (f *Firmware) Tail() []byte {
	n := MinSize
	if distance, err := f.word(guidSEVMetadata, ""); err == nil && uint64(distance) <= uint64(len(f.raw)) {
		n = max(n, (int(distance)+MinSize-1)/MinSize*MinSize)
	}
	return f.raw[len(f.raw)-min(n, len(f.raw)):]
}

// GPA is the guest physical address of the first byte: the file ends at 4 GiB.
func (f *Firmware) GPA() uint64 { return 1<<32 - uint64(len(f.raw)) }

// Table returns the entries of the GUIDed table, the last of the file first.
func (f *Firmware) Table() []Entry { return f.table }

// Entry returns the data of an entry.
func (f *Firmware) Entry(g efi.GUID) ([]byte, bool) {
	for _, e := range f.table {
		if e.GUID == g {
			return e.Data, true
		}
	}
	return nil, false
}

// ResetAddress is where application processors of an SEV-ES or SEV-SNP guest
// start, from the SEV-ES reset block.
func (f *Firmware) ResetAddress() (uint32, error) {
	return f.word(guidResetBlock, "SEV-ES reset block")
}

// SVSMEntry is the offset of the entry point in an SVSM image.
func (f *Firmware) SVSMEntry() (uint32, error) { return f.word(guidSVSMInfo, "SVSM information") }

func (f *Firmware) word(g efi.GUID, name string) (uint32, error) {
	data, ok := f.Entry(g)
	if !ok {
		return 0, fmt.Errorf("the firmware has no %s", name)
	}
	if len(data) < 4 {
		return 0, fmt.Errorf("%w: the %s has %d bytes", ErrFirmware, name, len(data))
	}
	return binary.LittleEndian.Uint32(data), nil
}

// Area is a range of guest memory that the firmware sets aside.
type Area struct{ GPA, Size uint32 }

// HashTable is where the kernel-hashes table goes. It is false for firmware
// that measures no kernel, as OVMF without AmdSev.
func (f *Firmware) HashTable() (Area, bool) { return f.area(guidHashTable) }

// LaunchSecret is where SEV injects secrets.
func (f *Firmware) LaunchSecret() (Area, bool) { return f.area(guidLaunchSecret) }

func (f *Firmware) area(g efi.GUID) (Area, bool) {
	data, ok := f.Entry(g)
	if !ok || len(data) < 8 {
		return Area{}, false
	}
	a := Area{binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])}
	return a, a != Area{}
}

// descriptor returns what lies the given distance before the end of the file:
// a 16-byte head of signature, length, version 1 and count, and so many records.
func (f *Firmware) descriptor(name, signature string, distance uint32, record int) ([]byte, error) {
	const head = 16
	if distance < head || uint64(distance) > uint64(len(f.raw)) {
		return nil, fmt.Errorf("%w: %s %d bytes before the end of a file of %d", ErrFirmware, name, distance, len(f.raw))
	}
	b := f.raw[len(f.raw)-int(distance):]
	version, count := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	switch {
	case string(b[:4]) != signature:
		return nil, fmt.Errorf("%w: %s begins with %q, not %q", ErrFirmware, name, b[:4], signature)
	case version != 1:
		return nil, fmt.Errorf("%w: %s of version %d, only 1 is known", ErrFirmware, name, version)
	case uint64(count)*uint64(record) > uint64(len(b)-head):
		return nil, fmt.Errorf("%w: %s with %d sections does not fit into the file", ErrFirmware, name, count)
	}
	return b[head : head+int(count)*record], nil
}
