package unpack

import (
	"archive/tar"

	"golang.org/x/sys/unix"
)

// An Option changes how a layer is unpacked.
type Option func(*unpacker)

// XattrOpaqueUser is [XattrOpaque] where nobody may write trusted attributes:
// overlayfs knows it as that of unprivileged mounts.
const XattrOpaqueUser = "user.overlay.opaque"

// Unowned unpacks for somebody who is root in a user namespace of his own and
// nowhere else. What only root may give is left out: owners, file capabilities,
// access lists, which name other users, and devices, for which an empty file
// stands. Set-user-ID and set-group-ID bits of files are left out with their
// owners, as they would lend the rights of whoever unpacks.
func Unowned() Option {
	return func(u *unpacker) { u.unowned, u.opaqueAttr = true, XattrOpaqueUser }
}

// mode is that of an entry as it is given here.
func (u *unpacker) mode(hdr *tar.Header) uint32 {
	m := uint32(hdr.Mode & 0o7777)
	if u.unowned && hdr.Typeflag != tar.TypeDir {
		m &^= unix.S_ISUID | unix.S_ISGID
	}
	return m
}

// standIn puts an empty file where the archive has a device.
func (u *unpacker) standIn(hdr *tar.Header, in folder, name string) error {
	_, err := u.replacing(in, name, func() error { return unix.Mknodat(in.fd, name, unix.S_IFREG|u.mode(hdr), 0) })
	if err != nil {
		return err
	}
	return u.finishNode(hdr, in, name)
}
