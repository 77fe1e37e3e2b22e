package rootfstest

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
)

// OwnRelease is the release of a kernel that comes from no package.
const OwnRelease = "6.13.0-own"

// OwnKernel is its image.
func OwnKernel() []byte {
	image := boottest.Kernel([]byte(OwnRelease + " (somebody@example.org) #1\x00and its code"))
	const atVersion, base = 0x20e, 0x200
	binary.LittleEndian.PutUint16(image[atVersion:], 0x600-base) // the first section
	return image
}

// WriteOwnKernel writes bzImage and modules/RELEASE into a folder.
func WriteOwnKernel(dir string) error {
	modules := filepath.Join(dir, "modules", OwnRelease)
	var all []error
	for name, content := range map[string][]byte{
		filepath.Join(dir, "bzImage"):                                  OwnKernel(),
		filepath.Join(modules, "modules.builtin"):                      []byte("kernel/drivers/md/dm-mod.ko\n"),
		filepath.Join(modules, "kernel", "drivers/md", "dm-verity.ko"): Module("name=dm_verity", "depends=dm-mod"),
	} {
		all = append(all, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, content, 0o644))
	}
	return errors.Join(all...)
}
