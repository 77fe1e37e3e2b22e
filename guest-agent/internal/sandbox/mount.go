package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// mountFlags are the options of mount(8) that are flags of mount(2). Those that
// change an existing mount (remount, bind, the propagation kinds) are left out
// on purpose: in a storage's options they are refused.
var mountFlags = map[string]struct {
	flag  uintptr
	clear bool
}{
	"defaults": {}, "rw": {unix.MS_RDONLY, true}, "ro": {unix.MS_RDONLY, false},
	"suid": {unix.MS_NOSUID, true}, "nosuid": {unix.MS_NOSUID, false},
	"dev": {unix.MS_NODEV, true}, "nodev": {unix.MS_NODEV, false},
	"exec": {unix.MS_NOEXEC, true}, "noexec": {unix.MS_NOEXEC, false},
	"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true}, "dirsync": {unix.MS_DIRSYNC, false},
	"atime": {unix.MS_NOATIME, true}, "noatime": {unix.MS_NOATIME, false},
	"diratime": {unix.MS_NODIRATIME, true}, "nodiratime": {unix.MS_NODIRATIME, false},
	"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {unix.MS_STRICTATIME, false},
}

var refusedOptions = map[string]bool{
	"remount": true, "move": true, "bind": true, "rbind": true,
	"shared": true, "rshared": true, "slave": true, "rslave": true,
	"private": true, "rprivate": true, "unbindable": true, "runbindable": true,
}

// options are a storage's options, taken apart.
type options struct {
	flags uintptr
	data  string      // what the filesystem itself reads
	mode  fs.FileMode // for a directory; 0 if not given
	gid   int         // the group that owns the volume; -1 if not given
}

// parseOptions reads options. With own, mode= is ours; otherwise the filesystem
// gets it.
func parseOptions(list []string, own bool) (options, error) {
	o := options{gid: -1}
	var data []string
	for _, opt := range list {
		for _, part := range strings.Split(opt, ",") {
			key, value, _ := strings.Cut(part, "=")
			f, isFlag := mountFlags[part]
			switch {
			case part == "":
			case isFlag && f.clear:
				o.flags &^= f.flag
			case isFlag:
				o.flags |= f.flag
			case refusedOptions[part]:
				return o, invalidf("storage option %q is not supported", part)
			case key == "fsgid":
				gid, err := parseGID(value)
				if err != nil {
					return o, err
				}
				o.gid = gid
			case key == "mode" && own:
				mode, err := strconv.ParseUint(value, 8, 12)
				if err != nil {
					return o, invalidf("storage option %q is not an octal mode", part)
				}
				o.mode = fileMode(uint32(mode))
			case strings.ContainsAny(part, "\x00\n"):
				return o, invalidf("storage option %q is malformed", part)
			default:
				data = append(data, part)
			}
		}
	}
	o.data = strings.Join(data, ",")
	return o, nil
}

func parseGID(s string) (int, error) {
	gid, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return -1, invalidf("%q is not a group id", s)
	}
	return int(gid), nil
}

// fileMode turns the permission bits of st_mode, the special ones among them,
// into Go's.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, special := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= special
		}
	}
	return mode
}

// mountPoint opens the directory rel, making it if need be, without leaving its
// part of the state directory by symbolic links that the host may have placed
// there. The file must be closed; its path is stable while the mount exists.
func (l layout) mountPoint(rel string) (*os.File, error) {
	part, name, err := l.open(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = part.Close() }()
	if err := part.MkdirAll(name, 0o755); err != nil {
		return nil, err
	}
	f, err := part.Open(name)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.IsDir() {
		return nil, errors.Join(invalidf("mount point %q is not a directory", rel), err, f.Close())
	}
	return f, nil
}

// fdPath names an open file for system calls that take paths.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// mountOn mounts onto the open directory and returns its path without symbolic
// links, which is what [unmount] takes.
func mountOn(target *os.File, source, fstype string, flags uintptr, data string) (string, error) {
	path, err := os.Readlink(fdPath(target))
	if err != nil {
		return "", err
	}
	if err := unix.Mount(source, fdPath(target), fstype, flags, data); err != nil {
		return "", fmt.Errorf("mount %s on %s: %w", fstype, path, driver.Filesystem(fstype, err))
	}
	return path, nil
}

// unmount detaches, so that it also works while something still has a file
// open. What is not mounted is no error.
func unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("unmount %s: %w", path, err)
}

// own gives a volume to a group, as Kubernetes' fsGroup wants it.
func own(path string, gid int) error {
	if gid < 0 {
		return nil
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	const groupBits = 0o070
	return os.Chmod(path, fi.Mode().Perm()|groupBits|fi.Mode()&fs.ModeSticky|fs.ModeSetgid)
}
