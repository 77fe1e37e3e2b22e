package efi

import "encoding/binary"

// GUIDs of the variables that are measured.
var (
	GlobalVariable   = NewGUID(0x8be4df61, 0x93ca, 0x11d2, 0xaa0d00e098032b8c)
	SecurityDatabase = NewGUID(0xd719b2cb, 0x3d3a, 0x4596, 0xa3bcdad00e67656f)
)

// VariableData returns UEFI_VARIABLE_DATA (TCG PC Client PFP 1.06, 10.2.6): what
// a log shows of a variable, and what is hashed of those of Secure Boot.
func VariableData(g GUID, name string, data []byte) []byte {
	wide := UTF16(name)
	b := append([]byte(nil), g[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(wide)/2))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	return append(append(b, wide...), data...)
}

// ImageLoad returns EFI_IMAGE_LOAD_EVENT (PFP 1.06, 10.2.3) of an image whose
// place in memory is not known.
func ImageLoad(size uint64, path []byte) []byte {
	b := make([]byte, 8, 32+len(path))
	b = binary.LittleEndian.AppendUint64(b, size)
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(path)))
	return append(b, path...)
}

// Device path nodes (UEFI 2.11, 10.3.5).
const (
	mediaVendor = 0x03
	mediaFile   = 0x06
	mediaVolume = 0x07
)

// EndPath ends a device path.
var EndPath = []byte{0x7f, 0xff, 4, 0}

func mediaNode(kind byte, data []byte) []byte {
	b := []byte{4, kind, 0, 0}
	binary.LittleEndian.PutUint16(b[2:], uint16(4+len(data)))
	return append(b, data...)
}

// VolumeFile is the device path of a file in a firmware volume.
func VolumeFile(volume, file GUID) []byte {
	return append(append(mediaNode(mediaVolume, volume[:]), mediaNode(mediaFile, file[:])...), EndPath...)
}

// vendorKernel is the vendor path under which OVMF offers a kernel that QEMU
// loads, with its file name behind it.
var vendorKernel = NewGUID(0x1428f772, 0xb64a, 0x441e, 0xb8c39ebdd7f893c7)

// KernelPath is the device path of the kernel that QEMU loads.
func KernelPath() []byte {
	const file = 0x04
	b := mediaNode(mediaVendor, vendorKernel[:])
	return append(append(b, mediaNode(file, UTF16Z("kernel"))...), EndPath...)
}

// LoadOption returns EFI_LOAD_OPTION (UEFI 2.11, 3.1.3), the value of a
// Boot#### variable.
func LoadOption(attributes uint32, description string, path, optional []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, attributes)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	b = append(b, UTF16Z(description)...)
	return append(append(b, path...), optional...)
}
