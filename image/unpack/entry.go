package unpack

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"path"
	"strings"
	"time"

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
	if done, err := u.whiteout(hdr.Name, p); done || err != nil {
		return err
	}
	if p == "." {
		return u.layerRoot(hdr)
	}
	dirfd, name, err := u.parent(hdr.Name, p)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dirfd) }()
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(hdr, dirfd, name, content)
	case tar.TypeDir:
		return u.directory(hdr, dirfd, name, p)
	case tar.TypeSymlink:
		return u.symlink(hdr, dirfd, name)
	case tar.TypeLink:
		return u.hardLink(hdr, dirfd, name, p)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(hdr, dirfd, name)
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

func mode(hdr *tar.Header) uint32 { return uint32(hdr.Mode & 0o7777) }

// clearName removes what an earlier entry left under the name. It reports whether
// that was a whiteout.
func clearName(dirfd int, name string) (whiteout bool, err error) {
	st, err := lookup(dirfd, name)
	if err != nil || st == nil {
		return false, err
	}
	return isWhiteout(st), removeAll(dirfd, name)
}

func (u *unpacker) layerRoot(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return refuse(hdr.Name, "the layer itself can only be a directory")
	}
	if err := u.finish(hdr, u.root.fd); err != nil {
		return err
	}
	return u.rememberTime(".", u.root.fd, hdr.ModTime)
}

// finish sets owner, mode and attributes of an open file or directory, in the
// order in which none undoes another: chown clears set-uid and capabilities.
func (u *unpacker) finish(hdr *tar.Header, fd int) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode(hdr)); err != nil {
		return err
	}
	return setXattrs(hdr, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
}

func (u *unpacker) file(hdr *tar.Header, dirfd int, name string, content io.Reader) error {
	if _, err := clearName(dirfd, name); err != nil {
		return err
	}
	if hdr.Size > u.limits.Bytes-u.result.Bytes {
		return refuse(hdr.Name, "the files hold more than %d bytes", u.limits.Bytes)
	}
	fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := u.copy(fd, content)
	u.result.Bytes += n
	if err != nil {
		return err
	}
	if err := u.finish(hdr, fd); err != nil {
		return err
	}
	return setTime(dirfd, name, hdr.ModTime)
}

func (u *unpacker) copy(fd int, content io.Reader) (int64, error) {
	var total int64
	for {
		n, err := content.Read(u.buf)
		for b := u.buf[:n]; len(b) > 0; {
			w, werr := unix.Write(fd, b)
			if errors.Is(werr, unix.EINTR) {
				continue
			}
			if werr != nil {
				return total, werr
			}
			b, total = b[w:], total+int64(w)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, refuse("", "the archive is cut short: %w", err)
		}
	}
}

func (u *unpacker) directory(hdr *tar.Header, dirfd int, name, p string) error {
	st, err := lookup(dirfd, name)
	if err != nil {
		return err
	}
	opaque := false
	if st == nil || !isDir(st) {
		if opaque, err = clearName(dirfd, name); err != nil {
			return err
		}
		if err := unix.Mkdirat(dirfd, name, 0o700); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := u.finish(hdr, fd); err != nil {
		return err
	}
	if opaque { // the directory below was deleted by this layer before
		if err := setOpaque(fd); err != nil {
			return err
		}
	}
	return u.rememberTime(p, fd, hdr.ModTime)
}

func (u *unpacker) symlink(hdr *tar.Header, dirfd int, name string) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > maxPath || strings.ContainsRune(hdr.Linkname, 0) {
		return refuse(hdr.Name, "bad link target")
	}
	if _, err := clearName(dirfd, name); err != nil {
		return err
	}
	if err := unix.Symlinkat(hdr.Linkname, dirfd, name); err != nil {
		return err
	}
	return u.finishNode(hdr, dirfd, name)
}

// finishNode sets owner, attributes and time of what cannot be opened.
func (u *unpacker) finishNode(hdr *tar.Header, dirfd int, name string) error {
	if err := unix.Fchownat(dirfd, name, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink { // just made here, so it is no link
		if err := unix.Fchmodat(dirfd, name, mode(hdr), 0); err != nil {
			return err
		}
	}
	target := procPath(dirfd, name)
	if err := setXattrs(hdr, func(name string, value []byte) error { return unix.Lsetxattr(target, name, value, 0) }); err != nil {
		return err
	}
	return setTime(dirfd, name, hdr.ModTime)
}

// hardLink links to an entry of the same layer. The link has the metadata of
// its target, which is the same inode.
func (u *unpacker) hardLink(hdr *tar.Header, dirfd int, name, p string) error {
	target, err := u.cleanPath(hdr.Name, hdr.Linkname)
	if err != nil {
		return err
	}
	if target == p {
		return refuse(hdr.Name, "a link to itself")
	}
	dir, base := path.Split(target)
	tfd, err := u.root.open(path.Clean("./" + dir))
	if err != nil {
		return refuse(hdr.Name, "link target %.200q is not in the layer: %w", hdr.Linkname, err)
	}
	defer func() { _ = unix.Close(tfd) }()
	before, err := lookup(tfd, base)
	if err != nil {
		return err
	}
	if before == nil || isDir(before) || isWhiteout(before) {
		return refuse(hdr.Name, "link target %.200q is not a file of the layer", hdr.Linkname)
	}
	if now, err := lookup(dirfd, name); err != nil {
		return err
	} else if now != nil && now.Ino == before.Ino && now.Dev == before.Dev {
		return nil // the same file already, perhaps by another path
	}
	if _, err := clearName(dirfd, name); err != nil {
		return err
	}
	if err := unix.Linkat(tfd, base, dirfd, name, 0); err != nil {
		// Removing the old name may have removed a directory above the target.
		return refuse(hdr.Name, "link to %.200q: %w", hdr.Linkname, err)
	}
	return nil
}

func (u *unpacker) node(hdr *tar.Header, dirfd int, name string) error {
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
	}
	if _, err := clearName(dirfd, name); err != nil {
		return err
	}
	if err := unix.Mknodat(dirfd, name, format|mode(hdr), int(dev)); err != nil {
		return err
	}
	return u.finishNode(hdr, dirfd, name)
}

// dirTime is a directory's time, which is set last because entries made inside
// change it. The inode tells whether the path still leads to that directory.
type dirTime struct {
	ino uint64
	at  time.Time
}

func (u *unpacker) rememberTime(p string, fd int, at time.Time) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	u.dirs[p] = dirTime{ino: st.Ino, at: at}
	return nil
}

func (u *unpacker) setDirTimes() error {
	for p, want := range u.dirs {
		fd, err := u.root.open(p)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // a later entry replaced it
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Ino == want.ino {
			err = setTime(fd, ".", want.at)
		}
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func setTime(dirfd int, name string, at time.Time) error {
	ts := unix.Timespec{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
	return unix.UtimesNanoAt(dirfd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
