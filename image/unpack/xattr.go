package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrRecord is how archives carry extended attributes.
const xattrRecord = "SCHILY.xattr."

// setXattrs restores the attributes that an image may bring: user data, file
// capabilities and ACLs. Attributes by which overlayfs steers itself are an
// attack and refused. Others (labels of the machine that built the image,
// another system's metadata) mean nothing here and are left out.
func (u *unpacker) setXattrs(hdr *tar.Header, set func(name string, value []byte) error) error {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok {
			continue
		}
		if strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") {
			return refuse(hdr.Name, "attribute %.80q is not for archives", name)
		}
		if !u.wanted(name) || (hdr.Typeflag != tar.TypeReg && hdr.Typeflag != tar.TypeDir && strings.HasPrefix(name, "user.")) {
			continue // the kernel allows user attributes on files and directories only
		}
		value := hdr.PAXRecords[record]
		if len(value) > maxXattr || len(name) > maxName {
			return refuse(hdr.Name, "attribute %.80q is too large", name)
		}
		err := set(name, []byte(value))
		if errors.Is(err, unix.ENOTSUP) && strings.HasPrefix(name, "user.") {
			continue // a file system of memory before Linux 6.6; it is data, no right depends on it
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG) {
			return refuse(hdr.Name, "attribute %.80q is not well formed: %w", name, err)
		}
		if err != nil {
			return fmt.Errorf("set attribute %q: %w", name, err)
		}
	}
	return nil
}

func (u *unpacker) wanted(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return !u.unowned
	}
	return strings.HasPrefix(name, "user.")
}
