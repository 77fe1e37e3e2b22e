package dm

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/image/verity"
)

// OpenVerity opens a file that holds data and, right behind it, its tree. Every
// block that is read from the device was checked, or the read fails. The name
// must be unique on the machine. The table is that of Linux,
// Documentation/admin-guide/device-mapper/verity.rst.
func OpenVerity(file, name string, root verity.Root) (Device, error) {
	d, err := openVerity(file, name, root)
	if err != nil {
		return d, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

func openVerity(file, name string, root verity.Root) (Device, error) {
	loop, err := attach(file)
	if err != nil {
		return Device{name}, fmt.Errorf("attach a loop device: %w", err)
	}
	defer func() { _ = loop.Close() }() // the kernel lets it go when the last user has
	return Open(name, VerityTarget(loop.Name(), root))
}

// VerityTarget is the target for a device node that holds data and, right
// behind it, its tree.
func VerityTarget(node string, root verity.Root) Target {
	salt := "-"
	if len(root.Salt) > 0 {
		salt = fmt.Sprintf("%x", root.Salt)
	}
	return Target{
		Kind: "verity", ReadOnly: true, Sectors: root.Blocks * verity.BlockSize / SectorSize,
		Params: fmt.Sprintf("1 %[1]s %[1]s %[2]d %[2]d %[3]d %[3]d sha256 %[4]x %[5]s", node, verity.BlockSize, root.Blocks, root.Hash[:], salt),
	}
}
