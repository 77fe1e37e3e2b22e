package securemount

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// podMountFlags are what a host may choose of how a pod's volume is mounted.
const podMountFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_SYNCHRONOUS

// MountKey opens the persistent volume on the device at node by the key that the
// pod's owner has named, and mounts it on a directory. With format it makes a new
// one if the device is empty. It returns what Unmount takes. Errors are
// *fault.Fault.
func (m *Mounter) MountKey(ctx context.Context, node, key string, format bool, fs Filesystem, flags uintptr, dir *os.File) (string, error) {
	path, err := os.Readlink(fdPath(dir))
	if err == nil {
		fs, err = parseFilesystem(string(fs))
	}
	if err != nil {
		return "", m.refused(ctx, path, err)
	}
	v := Volume{
		Device: Device{Path: node}, Key: key, Integrity: true, Filesystem: fs, MountPoint: path, MountFlags: flags & podMountFlags, Format: format,
	}
	switch {
	case key == "":
		return "", m.refused(ctx, path, invalid("a pod's volume has a key"))
	case format && flags&unix.MS_RDONLY != 0:
		v.Format = false // nobody writes to it
	}
	err = m.add(ctx, v, dir)
	if v.Format && fault.CodeOf(err) == fault.VolumeNotEmpty {
		v.Format = false // it is there already
		err = m.add(ctx, v, dir)
	}
	return path, m.refused(ctx, path, err)
}
