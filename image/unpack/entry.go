package unpack

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// entry makes one entry of the archive.
func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // a comment for the whole archive, written by git
	}
	p, err := u.cleanPath(hdr.Name, hdr.Name)
	if err != nil {
		return err
	}
	if err := checkOwner(hdr); err != nil {
		return err
	}
	u.root.tidy()
	if done, err := u.whiteout(hdr.Name, p); done || err != nil {
		return err
	}
	if p == "." {
		return u.layerRoot(hdr)
	}
	in, name, err := u.parent(hdr.Name, p)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(hdr, in, name, content)
	case tar.TypeDir:
		return u.directory(hdr, in, name, p)
	case tar.TypeSymlink:
		return u.symlink(hdr, in, name)
	case tar.TypeLink:
		return u.hardLink(hdr, in, name, p)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(hdr, in, name)
	}
	return refuse(hdr.Name, "entry type %q is not supported", hdr.Typeflag)
}

// checkOwner refuses IDs that do not fit. 2^32-1 means "leave as it is" to
// chown, which would make the file root's.
func checkOwner(hdr *tar.Header) error {
	for _, id := range []int{hdr.Uid, hdr.Gid} {
		if id < 0 || int64(id) >= math.MaxUint32 {
			return refuse(hdr.Name, "owner %d:%d does not fit 32 bits", hdr.Uid, hdr.Gid)
		}
	}
	return nil
}

// replacing runs create, which makes the name and fails if it is there. Then
// what an earlier entry left is removed, and create runs again. Names seldom
// repeat, so nothing looks first. It returns what was removed.
func (u *unpacker) replacing(in folder, name string, create func() error) (*unix.Stat_t, error) {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	was, err := u.clear(in, name)
	if err != nil {
		return nil, err
	}
	return was, create()
}

func (u *unpacker) layerRoot(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return refuse(hdr.Name, "the layer itself can only be a directory")
	}
	u.root.stale = true // its group may change
	if err := u.finish(hdr, u.root.fd, u.unowned); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(u.root.fd, &st); err != nil {
		return err
	}
	delete(u.implied, ".")
	u.dirs[st.Ino] = dirTimes{".", timesOf(hdr)}
	return nil
}

// ownedAlready reports that what was just made in a directory has the owner
// that the archive wants, as most of a layer has.
func (u *unpacker) ownedAlready(hdr *tar.Header, in folder) bool {
	return u.unowned || u.asRoot && in.rootGID && hdr.Uid == 0 && hdr.Gid == 0
}

// finish sets owner, mode and attributes of an open file or directory, in the
// order in which none undoes another: chown clears set-uid and capabilities.
func (u *unpacker) finish(hdr *tar.Header, fd int, owned bool) error {
	if !owned {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, u.mode(hdr)); err != nil {
		return err
	}
	return u.setXattrs(hdr, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
}

func (u *unpacker) file(hdr *tar.Header, in folder, name string, content io.Reader) error {
	if hdr.Size > u.limits.Bytes-u.result.Bytes {
		return refuse(hdr.Name, "the files hold more than %d bytes", u.limits.Bytes)
	}
	fd := -1
	_, err := u.replacing(in, name, func() (err error) {
		fd, err = unix.Openat(in.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	file := unfinished{fd: fd, hdr: hdr, owned: u.ownedAlready(hdr, in)}
	if hdr.Size <= smallFile && u.src.headed <= smallHeaders {
		u.result.Bytes += hdr.Size
		return u.small.add(file, content)
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := u.content(fd, content)
	u.result.Bytes += n
	if err != nil {
		return err
	}
	return u.finishFile(file)
}

// finishFile ends what file began: it writes the content that the file has not
// got yet, and sets the metadata. It changes nothing but the file, as it runs
// beside the unpacker.
func (u *unpacker) finishFile(f unfinished) error {
	if err := writeAt(f.fd, f.content, 0); err != nil {
		return err
	}
	if err := u.finish(f.hdr, f.fd, f.owned); err != nil {
		return err
	}
	return timesOf(f.hdr).setOpen(f.fd)
}

func (u *unpacker) directory(hdr *tar.Header, in folder, name, p string) error {
	create := func() error { return unix.Mkdirat(in.fd, name, 0o700) }
	err := create()
	fresh := err == nil
	opaque := false
	if errors.Is(err, unix.EEXIST) {
		fresh, opaque, err = u.existing(in, name, create)
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(in.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && fresh {
		err = u.deeper(hdr.Name, in, st.Ino)
	}
	u.root.keep(p, folder{fd, u.root.depths[st.Ino], hdr.Gid == 0})
	if err != nil {
		return err
	}
	delete(u.implied, p)
	if err := u.finish(hdr, fd, u.unowned || fresh && u.ownedAlready(hdr, in)); err != nil {
		return err
	}
	if opaque {
		if err := u.setOpaque(fd); err != nil {
			return err
		}
	}
	u.dirs[st.Ino] = dirTimes{p, timesOf(hdr)} // the later entry counts, also by another path
	return nil
}

// existing makes a directory where there is something already. A directory
// stays, with what is in it. Anything else goes, and because it hid what lower
// layers have under the name, the new directory goes on hiding it.
func (u *unpacker) existing(in folder, name string, create func() error) (fresh, opaque bool, err error) {
	st, err := lookup(in.fd, name)
	if err != nil {
		return false, false, err
	}
	if st != nil && isDir(st) {
		u.root.stale = true // its group may change, and it may be open under another path
		return false, false, nil
	}
	if _, err := u.clear(in, name); err != nil {
		return false, false, err
	}
	return true, true, create()
}

func (u *unpacker) symlink(hdr *tar.Header, in folder, name string) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > maxPath || strings.ContainsRune(hdr.Linkname, 0) {
		return refuse(hdr.Name, "bad link target")
	}
	_, err := u.replacing(in, name, func() error { return unix.Symlinkat(hdr.Linkname, in.fd, name) })
	if err != nil {
		return err
	}
	return u.finishNode(hdr, in, name)
}

// finishNode sets owner, attributes and time of what cannot be opened.
func (u *unpacker) finishNode(hdr *tar.Header, in folder, name string) error {
	if !u.ownedAlready(hdr, in) {
		if err := unix.Fchownat(in.fd, name, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if hdr.Typeflag != tar.TypeSymlink { // just made here, so it is no link
		if err := unix.Fchmodat(in.fd, name, u.mode(hdr), 0); err != nil {
			return err
		}
	}
	err := u.setXattrs(hdr, func(attr string, value []byte) error { return unix.Lsetxattr(procPath(in.fd, name), attr, value, 0) })
	if err != nil {
		return err
	}
	return timesOf(hdr).set(in.fd, name)
}

// hardLink links to an entry of the same layer. The link has the metadata of
// its target, which is the same inode.
func (u *unpacker) hardLink(hdr *tar.Header, in folder, name, p string) error {
	target, err := u.cleanPath(hdr.Name, hdr.Linkname)
	if err != nil {
		return err
	}
	if target == p {
		return refuse(hdr.Name, "a link to itself")
	}
	dir, base := path.Split(target)
	from, err := u.root.folder(path.Clean("./" + dir))
	if err != nil {
		return refuse(hdr.Name, "link target %.200q is not in the layer: %w", hdr.Linkname, err)
	}
	before, err := lookup(from.fd, base)
	if err != nil {
		return err
	}
	if before == nil || isDir(before) || isWhiteout(before) {
		return refuse(hdr.Name, "link target %.200q is not a file of the layer", hdr.Linkname)
	}
	create := func() error { return unix.Linkat(from.fd, base, in.fd, name, 0) }
	if err = create(); errors.Is(err, unix.EEXIST) {
		now, lerr := lookup(in.fd, name)
		if lerr != nil {
			return lerr
		}
		if now != nil && now.Ino == before.Ino && now.Dev == before.Dev {
			return nil // the same file already, perhaps by another path
		}
		if _, err := u.clear(in, name); err != nil {
			return err
		}
		err = create()
	}
	if err != nil {
		// Removing the old name may have removed a directory above the target.
		return refuse(hdr.Name, "link to %.200q: %w", hdr.Linkname, err)
	}
	return nil
}

func (u *unpacker) node(hdr *tar.Header, in folder, name string) error {
	format, dev := uint32(unix.S_IFIFO), uint64(0)
	if hdr.Typeflag != tar.TypeFifo {
		if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
			return refuse(hdr.Name, "bad device number")
		}
		format, dev = unix.S_IFBLK, unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if hdr.Typeflag == tar.TypeChar {
			format = unix.S_IFCHR
		}
		if format == unix.S_IFCHR && dev == 0 {
			return refuse(hdr.Name, "a character device 0:0 means a deleted file to overlayfs")
		}
		if u.unowned {
			return u.standIn(hdr, in, name)
		}
	}
	_, err := u.replacing(in, name, func() error { return unix.Mknodat(in.fd, name, format|u.mode(hdr), int(dev)) })
	if err != nil {
		return err
	}
	return u.finishNode(hdr, in, name)
}
