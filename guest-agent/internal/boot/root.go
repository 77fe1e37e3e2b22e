package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// newRoot is where the root is assembled before the process moves there.
const newRoot = "/sysroot"

// enterRoot moves the process off the kernel's first root, on which pivot_root,
// and with it every OCI runtime, refuses to work: it has no parent that it could
// be detached from. Where the initramfs is the whole image, a second mount of the
// same tree has a parent, and costs no copy. Where the command line names a disk,
// the agent on that disk takes over, and begins anew.
//
// A root that came from a disk already is where it should be.
func enterRoot(ctx context.Context, p parameters, log *slog.Logger) error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return err
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	for _, dir := range append([]string{newRoot}, topMounts...) {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if p.verity != nil {
		return enterDisk(ctx, p, log)
	}
	if err := unix.Mount("/", newRoot, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the root: %w", err)
	}
	if err := moveRoot(); err != nil {
		return err
	}
	if err := os.Remove(newRoot); err != nil {
		return err
	}
	// What a guest writes goes to file systems that say so.
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// enterDisk returns only on failure.
func enterDisk(ctx context.Context, p parameters, log *slog.Logger) error {
	if err := mountAll(); err != nil {
		return err
	}
	if err := loadModules(ctx, atOnce, log, listBefore); err != nil {
		return err
	}
	device, err := p.verity.open()
	if err != nil {
		return err
	}
	if err := unix.Mount(device, newRoot, p.verity.fstype, unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, dir := range topMounts {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := moveRoot(); err != nil {
		return err
	}
	log.Info("the root is a verity device")
	return fmt.Errorf("start the agent of the root: %w", unix.Exec(initPath, []string{initPath}, os.Environ()))
}

// initPath is where every form of the image has the agent.
const initPath = "/init"

// moveRoot makes what is mounted at newRoot the root.
func moveRoot() error {
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}
