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
	return path, m.refused(ctx, path, m.addKeyed(ctx, v, dir))
}

// OpenKey opens the persistent volume on the device at node as MountKey does, and
// makes link, which must not exist, a symbolic link to the device that shows it in
// the clear. Of a new volume nothing can be read that was not written: it has no
// tags yet. Unmount takes the link. Errors are *fault.Fault.
func (m *Mounter) OpenKey(ctx context.Context, node, key string, format bool, link string) error {
	if key == "" {
		return m.refused(ctx, link, invalid("a pod's volume has a key"))
	}
	return m.refused(ctx, link, m.addKeyed(ctx, Volume{
		Device: Device{Path: node}, Key: key, Integrity: true, Filesystem: NoFilesystem, MountPoint: link, Format: format,
	}, nil))
}

// addKeyed opens a volume, or makes it where that is wanted and the device is empty.
func (m *Mounter) addKeyed(ctx context.Context, v Volume, dir *os.File) error {
	err := m.add(ctx, v, dir)
	if v.Format && fault.CodeOf(err) == fault.VolumeNotEmpty {
		v.Format = false // it is there already
		err = m.add(ctx, v, dir)
	}
	return err
}
