package unpack

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The marks of deletion in a layer (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."
	opaqueMarker   = ".wh..wh..opq"
)

// XattrOpaque on a directory hides what lower layers have in it.
const XattrOpaque = "trusted.overlay.opaque"

// whiteout handles the entry if its name is a mark. A mark concerns only the
// layers below: what this layer has under the same name stays.
func (u *unpacker) whiteout(entry, p string) (done bool, err error) {
	dir, base := path.Split(p)
	for _, part := range strings.Split(strings.TrimSuffix(dir, "/"), "/") {
		if strings.HasPrefix(part, metaPrefix) {
			return true, nil // housekeeping of a file system long gone (aufs)
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return true, refuse(entry, "an entry below a deleted name")
		}
	}
	name, ok := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case !ok:
		return false, nil
	case base == opaqueMarker:
		return true, u.opaque(entry, p)
	case strings.HasPrefix(base, metaPrefix):
		return true, nil
	case name == "" || name == "." || name == "..":
		return true, refuse(entry, "a deletion of nothing")
	}
	return true, u.deleted(entry, path.Join(dir, name))
}

func (u *unpacker) opaque(entry, p string) error {
	in, _, err := u.parent(entry, p)
	if err != nil {
		return err
	}
	return u.setOpaque(in.fd)
}

func (u *unpacker) deleted(entry, p string) error {
	in, name, err := u.parent(entry, p)
	if err != nil {
		return err
	}
	st, err := lookup(in.fd, name)
	switch {
	case err != nil:
		return err
	case st == nil:
		if err := unix.Mknodat(in.fd, name, unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("make a whiteout: %w", err)
		}
		return nil
	case isDir(st): // this layer's directory stays, the one below is hidden
		f, err := u.root.folder(p)
		if err != nil {
			return err
		}
		return u.setOpaque(f.fd)
	}
	return nil // this layer's file hides the one below anyway
}

// setOpaque fails where the file system has no such attribute: a deleted
// directory must not come back silently.
func (u *unpacker) setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, u.opaqueAttr, []byte("y"), 0); err != nil {
		return fmt.Errorf("set %s, without which deleted files would come back: %w", u.opaqueAttr, err)
	}
	return nil
}
