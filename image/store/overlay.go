package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// overlay is one overlayfs mount: absolute paths, the topmost layer first.
// Without upper and work it is read-only, and needs two layers.
type overlay struct {
	lowers              []string
	upper, work, target string
	source              string // says in mount tables whose mount it is
}

func (o overlay) readOnly() bool { return o.upper == "" }

type option struct{ key, value string }

// safe are the options of every mount. Layers hold no redirects and no
// metadata-only copies; overlayfs must not follow any. Every mount is also
// "nodev": a device node that an image brings is kept and shown, and opens
// nothing. What a container may use is mounted over its /dev.
var safe = []option{{"redirect_dir", "nofollow"}, {"metacopy", "off"}}

// mountByOption uses fsopen(2) with one option per layer ("lowerdir+", Linux
// 6.7), so that no length of all of them together matters.
func (o overlay) mountByOption() error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlayfs: %w", driver.Filesystem("overlay", err))
	}
	defer func() { _ = unix.Close(fsfd) }()
	var options []option
	options = append(options, safe...)
	for _, l := range o.lowers {
		options = append(options, option{"lowerdir+", l})
	}
	if !o.readOnly() {
		options = append(options, option{"upperdir", o.upper}, option{"workdir", o.work})
	}
	options = append(options, option{"source", o.source})
	for _, opt := range options {
		if err := unix.FsconfigSetString(fsfd, opt.key, opt.value); err != nil {
			return fmt.Errorf("overlay option %s: %w%s", opt.key, err, kernelSays(fsfd))
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("create the overlay of %d layers: %w%s", len(o.lowers), err, kernelSays(fsfd))
	}
	attr := unix.MOUNT_ATTR_NODEV
	if o.readOnly() {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return fmt.Errorf("mount the overlay: %w%s", err, kernelSays(fsfd))
	}
	defer func() { _ = unix.Close(mfd) }()
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, o.target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount at %s: %w", o.target, err)
	}
	return nil
}

// mountByPage uses mount(2), for older kernels. It takes all options in one
// page, so the layers get short names: links in a directory that exists for
// the duration of the call and is named by its descriptor. About 180 layers
// fit; builders stop at 127.
func (o overlay) mountByPage(scratch string) error {
	dir, err := os.MkdirTemp(scratch, "links-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	names := make([]string, len(o.lowers))
	for i, l := range o.lowers {
		link := strconv.FormatInt(int64(i), 36)
		target, err := filepath.EvalSymlinks(l)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			return err
		}
		names[i] = fmt.Sprintf("/proc/self/fd/%d/%s", fd, link)
	}
	options, flags := "lowerdir="+strings.Join(names, ":"), uintptr(unix.MS_NODEV|unix.MS_RDONLY)
	if !o.readOnly() {
		options, flags = options+",upperdir="+o.upper+",workdir="+o.work, unix.MS_NODEV
	}
	for _, opt := range safe {
		options += "," + opt.key + "=" + opt.value
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("an overlay of %d layers does not fit into one page of mount options", len(o.lowers))
	}
	if err := unix.Mount(o.source, o.target, "overlay", flags, options); err != nil {
		return fmt.Errorf("mount the overlay of %d layers: %w", len(o.lowers), driver.Filesystem("overlay", err))
	}
	return nil
}

// kernelSays reads the messages that the kernel left on the descriptor.
func kernelSays(fsfd int) string {
	var all strings.Builder
	buf := make([]byte, 1024)
	for range 16 {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			break
		}
		all.WriteString(": " + strings.TrimSpace(string(buf[:n])))
	}
	return all.String()
}
