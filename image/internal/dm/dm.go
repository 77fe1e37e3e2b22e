// Package dm opens dm-verity devices (Linux, include/uapi/linux/dm-ioctl.h and
// Documentation/admin-guide/device-mapper/verity.rst) on loop devices, without
// udev and without libdevmapper: a guest has neither.
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

	"github.com/vouchsafe-cc/vouchsafe/image/verity"
)

const (
	controlPath = "/dev/mapper/control"

	headerSize = 312 // struct dm_ioctl up to its padded data
	targetSize = 40  // struct dm_target_spec
	bufferSize = 4096

	readOnly = 1 << 0 // DM_READONLY_FLAG

	sector = 512
)

// Commands of the control device, with the size of the header in them.
const (
	cmdVersion = 0xc138fd00
	cmdCreate  = 0xc138fd03
	cmdRemove  = 0xc138fd04
	cmdSuspend = 0xc138fd06 // and, without its flag, resume
	cmdLoad    = 0xc138fd09
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
	return nil, errNone
}

// request is one ioctl.
type request struct {
	cmd   uint
	name  string
	flags uint32
	table string // parameters of one verity target
	size  int64  // of the target in sectors
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
	copy(b[48:48+127], r.name)
	if r.table != "" {
		ne.PutUint32(b[20:], 1)
		spec := b[headerSize:]
		ne.PutUint64(spec[8:], uint64(r.size))
		copy(spec[24:], "verity")
		if len(r.table) >= bufferSize-headerSize-targetSize {
			return 0, errors.New("the table is too long")
		}
		copy(spec[targetSize:], r.table)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.Fd(), uintptr(r.cmd), uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return 0, errno
	}
	return ne.Uint64(b[40:]), nil
}

// A Device is a dm-verity device.
type Device struct{ name string }

// Verity returns the device of a name, which another process may have opened.
func Verity(name string) Device { return Device{name} }

// Path returns where the device's node is.
func (d Device) Path() string { return filepath.Join(filepath.Dir(controlPath), d.name) }

// OpenVerity opens a file that holds data and, right behind it, its tree. Every
// block that is read from the device was checked, or the read fails. The name
// must be unique on the machine.
func OpenVerity(file, name string, root verity.Root) (Device, error) {
	d := Device{name}
	if err := d.open(file, root); err != nil {
		return d, fmt.Errorf("open a verity device on %s: %w", file, err)
	}
	return d, nil
}

func (d Device) open(file string, root verity.Root) error {
	loop, err := attach(file)
	if err != nil {
		return fmt.Errorf("attach a loop device: %w", err)
	}
	defer func() { _ = loop.Close() }() // the kernel lets it go when the last user has
	c, err := openControl()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	dev, err := request{cmd: cmdCreate, name: d.name}.sendFor(c)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	salt := "-"
	if len(root.Salt) > 0 {
		salt = fmt.Sprintf("%x", root.Salt)
	}
	table := fmt.Sprintf("1 %[1]s %[1]s %[2]d %[2]d %[3]d %[3]d sha256 %[4]x %[5]s", loop.Name(), verity.BlockSize, root.Blocks, root.Hash[:], salt)
	err = request{cmd: cmdLoad, name: d.name, flags: readOnly, table: table, size: root.Blocks * verity.BlockSize / sector}.send(c)
	if err != nil {
		return errors.Join(fmt.Errorf("load the table: %w", err), d.Close())
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

// attach attaches a file, read-only, to a loop device that goes when its last
// user does. The file's path is the device's.
func attach(file string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	for range 64 { // others may take the free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		loop, err := openLoop(n)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: verity.BlockSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, errors.New("no loop device stays free")
}

func openLoop(n int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.Open(path)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return os.Open(path)
}
