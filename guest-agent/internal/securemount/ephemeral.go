package securemount

import (
	"context"
	"errors"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Ephemeral mounts ephemeral volumes as pods' emptyDir volumes need them. The
// host asks for these, and so it chooses nothing but the device. Volumes of pods
// that last are for [Mounter.MountKey].
type Ephemeral struct {
	Mounter *Mounter
	// UnsafeNoIntegrity lets the host alter what is on the device, unnoticed.
	UnsafeNoIntegrity bool
}

// emptyDirOptions are the field's for a filesystem that lives as long as its
// pod (guest-protocol 17.1): it has no journal.
var emptyDirOptions = []string{"-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128"}

// emptyDirMode lets every user of a pod write, as Kubernetes has it for emptyDir.
const emptyDirMode = 0o777

// MountOn makes an ext4 filesystem on the device at node, which must be empty,
// and mounts it on a directory. It returns what Unmount takes. Errors are
// *fault.Fault.
func (e Ephemeral) MountOn(ctx context.Context, node string, dir *os.File) (path string, err error) {
	path, err = e.Mounter.MountOn(ctx, Volume{
		Device: Device{Path: node}, Format: true, Integrity: !e.UnsafeNoIntegrity, Filesystem: Ext4, MkfsOptions: emptyDirOptions,
	}, dir)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(path, emptyDirMode); err != nil {
		return "", errors.Join(fault.New(fault.Internal, err), e.Unmount(context.WithoutCancel(ctx), path))
	}
	return path, nil
}

// Unmount takes it away, and its key with it, and wipes the device.
func (e Ephemeral) Unmount(ctx context.Context, path string) error {
	return e.Mounter.Unmount(ctx, path)
}
