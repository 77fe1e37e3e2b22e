package sandbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// OpenDisk opens the volume on a disk by its key, for a container that has it as a
// device, and returns the device that shows it in the clear. Several containers may
// have the same one. It is released with the other volumes.
func (v *Volumes) OpenDisk(ctx context.Context, b device.Block, key Key) (device.Block, error) {
	if v.s.cfg.Encrypted == nil {
		return b, invalidf("this agent does not encrypt disks")
	}
	rel := filepath.Join(volumesDir, "device-"+b.Name)
	link := filepath.Join(v.s.dir, rel)
	// Under another key it is another volume.
	kind := fmt.Sprintf("device under key %x", sha256.Sum256([]byte(key.Location)))
	e, err := v.s.storages.acquire(ctx, rel, kind, func(ctx context.Context) (undo, error) {
		if err := errors.Join(v.s.root.MkdirAll(volumesDir, 0o711), b.Unused()); err != nil {
			return nil, err
		}
		if err := v.s.cfg.Encrypted.OpenKey(ctx, b.Path, key, link); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return v.s.cfg.Encrypted.Unmount(ctx, link) }, nil
	})
	if err != nil {
		return b, err
	}
	v.held = append(v.held, e)
	return linked(link)
}

// linked is the device that a link of the agent's leads to.
func linked(link string) (device.Block, error) {
	node, err := os.Readlink(link)
	if err != nil {
		return device.Block{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return device.Block{}, fmt.Errorf("%s: %w", node, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return device.Block{}, fmt.Errorf("%s is no block device", node)
	}
	return device.Block{Name: filepath.Base(node), Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, nil
}
