// Package dm makes device-mapper devices (Linux, include/uapi/linux/dm-ioctl.h)
// by the ioctls of the control device, without udev and without libdevmapper: a
// guest has neither. OpenVerity checks what is read from a file; Open takes any
// target, for the guest agent's encrypted volumes.
package dm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

const (
	controlPath = "/dev/mapper/control"

	headerSize = 312 // struct dm_ioctl up to its padded data
	targetSize = 40  // struct dm_target_spec
	bufferSize = 4096
	maxName    = 127 // DM_NAME_LEN with its zero byte is 128

	readOnly    = 1 << 0  // DM_READONLY_FLAG
	suspend     = 1 << 1  // DM_SUSPEND_FLAG
	skipLockFS  = 1 << 10 // DM_SKIP_LOCKFS_FLAG
	withoutDone = 1 << 11 // DM_NOFLUSH_FLAG

	// SectorSize is the unit of all lengths here, whatever the device's own is.
	SectorSize = 512
)

// Commands of the control device, with the size of the header in them.
const (
	cmdVersion = 0xc138fd00
	cmdCreate  = 0xc138fd03
	cmdRemove  = 0xc138fd04
	cmdSuspend = 0xc138fd06 // and, without its flag, resume
	cmdLoad    = 0xc138fd09
	cmdTarget  = 0xc138fd11 // the version of a kind of target (Linux 5.0)
)

// Available says why this kernel cannot do it, or nil.
func Available() error {
	c, err := openControl()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return request{cmd: cmdVersion}.send(c)
}

var errNone = errors.New("the kernel has no device-mapper")

// openControl opens the control device, whose node may be missing where no udev runs.
func openControl() (*os.File, error) {
	c, err := os.OpenFile(controlPath, os.O_RDWR, 0)
	if err == nil {
		return c, nil
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) { // a node without its driver
		return nil, driver.Missing("dm_mod", fmt.Errorf("%w: %w", errNone, err))
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	misc, err := os.ReadFile("/proc/misc")
	if err != nil {
		return nil, err
	}
	var minor uint32
	for line := range strings.Lines(string(misc)) {
		var name string
		if n, _ := fmt.Sscan(line, &minor, &name); n == 2 && name == "device-mapper" {
			if err := os.MkdirAll(filepath.Dir(controlPath), 0o755); err != nil {
				return nil, err
			}
			if err := unix.Mknod(controlPath, unix.S_IFCHR|0o600, int(unix.Mkdev(10, minor))); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, err
			}
			return os.OpenFile(controlPath, os.O_RDWR, 0)
		}
	}
	return nil, driver.Missing("dm_mod", errNone)
}

// A Target is the one row of a device's table.
type Target struct {
	Kind     string // "crypt", "integrity", "verity"
	Sectors  int64  // length of the device
	Params   string // what the kind's documentation says; root can read them back, so no keys
	ReadOnly bool
}

// request is one ioctl.
type request struct {
	cmd    uint
	name   string
	flags  uint32
	target *Target
}

func (r request) send(c *os.File) error {
	_, err := r.sendFor(c)
	return err
}

// sendFor returns the device that the kernel names in its answer.
func (r request) sendFor(c *os.File) (uint64, error) {
	b := make([]byte, bufferSize)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], 4) // version of the interface
	ne.PutUint32(b[12:], bufferSize)
	ne.PutUint32(b[16:], headerSize)
	ne.PutUint32(b[28:], r.flags)
	copy(b[48:48+maxName], r.name)
	if t := r.target; t != nil {
		if t.ReadOnly {
			ne.PutUint32(b[28:], r.flags|readOnly)
		}
		ne.PutUint32(b[20:], 1)
		spec := b[headerSize:]
		ne.PutUint64(spec[8:], uint64(t.Sectors))
		copy(spec[24:targetSize-1], t.Kind)
		if len(t.Params) >= bufferSize-headerSize-targetSize {
			return 0, errors.New("the table is too long")
		}
		copy(spec[targetSize:], t.Params)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.Fd(), uintptr(r.cmd), uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return 0, errno
	}
	return ne.Uint64(b[40:]), nil
}

// A Device is a device-mapper device.
type Device struct{ name string }

// Named returns the device of a name, which another process may have opened.
func Named(name string) Device { return Device{name} }

// Path returns where the device's node is.
func (d Device) Path() string { return filepath.Join(filepath.Dir(controlPath), d.name) }

// Open makes a device of one target. The name must be unique on the machine. On
// failure nothing is left behind.
func Open(name string, t Target) (Device, error) {
	d := Device{name}
	if name == "" || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return d, fmt.Errorf("open a %s device: %q is no name for one", t.Kind, name)
	}
	if t.Sectors <= 0 {
		return d, fmt.Errorf("open a %s device: a length of %d sectors", t.Kind, t.Sectors)
	}
	if err := d.open(t); err != nil {
		return d, fmt.Errorf("open a %s device: %w", t.Kind, err)
	}
	return d, nil
}

func (d Device) open(t Target) error {
	c, err := openControl()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	dev, err := request{cmd: cmdCreate, name: d.name}.sendFor(c)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := (request{cmd: cmdLoad, name: d.name, target: &t}).send(c); err != nil {
		return errors.Join(fmt.Errorf("load the table: %w", t.explain(c, err)), d.Close())
	}
	err = request{cmd: cmdSuspend, name: d.name}.send(c)
	if err == nil {
		err = unix.Mknod(d.Path(), unix.S_IFBLK|0o600, int(devOf(dev)))
	}
	if errors.Is(err, unix.EEXIST) { // udev was here
		err = nil
	}
	if err != nil {
		return errors.Join(fmt.Errorf("resume: %w", err), d.Close())
	}
	return nil
}

// explain says whether a table was refused because the kernel has no such target.
func (t Target) explain(c *os.File, err error) error {
	if errors.Is(err, unix.EINVAL) && errors.Is(request{cmd: cmdTarget, name: t.Kind}.send(c), unix.EINVAL) {
		return driver.Missing("dm_"+t.Kind, err)
	}
	return err
}

// Fail replaces what the device does by errors, also for those who have it
// open: what is read or written fails from then on, and the kernel forgets the
// table with its key. Sectors is the device's length.
func (d Device) Fail(sectors int64) error {
	c, err := openControl()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for _, r := range []request{
		{cmd: cmdSuspend, name: d.name, flags: suspend | skipLockFS | withoutDone},
		{cmd: cmdLoad, name: d.name, target: &Target{Kind: "error", Sectors: sectors}},
		{cmd: cmdSuspend, name: d.name},
	} {
		if err := r.send(c); err != nil {
			return fmt.Errorf("make the device %s fail: %w", d.name, err)
		}
	}
	return nil
}

// devOf turns the kernel's huge_encode_dev into what mknod takes.
func devOf(dev uint64) uint64 {
	return unix.Mkdev(uint32(dev>>8&0xfff), uint32(dev&0xff|dev>>12&0xfff00))
}

// Close removes the device, which must not be mounted any more. One that is
// not there is fine.
func (d Device) Close() error {
	c, err := openControl()
	if errors.Is(err, errNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := (request{cmd: cmdRemove, name: d.name}).send(c); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove the device %s: %w", d.name, err)
	}
	if err := os.Remove(d.Path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
