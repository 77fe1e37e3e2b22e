package securemount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/program"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
	"github.com/vouchsafe-cc/vouchsafe/pause"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// kernel is what volumes need of the system. Tests have one of their own,
// because most machines let nobody use device-mapper; the real one is tested in
// a guest (make test-kernel).
type kernel interface {
	// openDisk fails for a device that is mounted or mapped already.
	openDisk(d Device) (disk, error)
	mapper
	shower
}

// mapper is device-mapper, with the keyring beside it.
type mapper interface {
	// mapDevice makes a mapping. A key, if there is one, is where the target
	// looks for it while the mapping is made, and nowhere afterwards.
	mapDevice(name string, t dm.Target, key secret.Bytes) (node string, err error)
	unmapDevice(ctx context.Context, name string) error
	// failDevice is [dm.Device.Fail].
	failDevice(name string, sectors int64) error
	node(name string) string
}

// shower puts a filesystem on a mapping and shows it.
type shower interface {
	// zero writes zeros where programs look for what was there before: of a new
	// mapping with integrity nothing can be read that was not written.
	zero(node string) error
	run(ctx context.Context, program string, args ...string) error
	mount(node string, dir *os.File, filesystem string, flags uintptr) error
	unmount(path string) error
	link(node, path string) error
	unlink(path string) error
}

// disk is an open block device.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Size() int64    // bytes
	Number() string // MAJOR:MINOR, as tables take it
	// Flush writes everything down, and forgets it, so that the next read is of
	// the device.
	Flush() error
	// Discard tells the device that nothing on it is needed, if it listens.
	Discard()
	Close() error
}

// linux is the real kernel.
type linux struct{}

type blockDevice struct {
	*os.File
	size   int64
	number string
}

func (b blockDevice) Size() int64    { return b.size }
func (b blockDevice) Number() string { return b.number }

func (b blockDevice) Flush() error {
	if err := b.Sync(); err != nil {
		return err
	}
	return unix.IoctlSetInt(int(b.Fd()), unix.BLKFLSBUF, 0)
}

func (b blockDevice) Discard() {
	all := [2]uint64{0, uint64(b.size)}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, b.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&all[0]))) // not every device can
}

func (linux) openDisk(d Device) (disk, error) {
	path := d.Path
	if path == "" {
		dir, err := os.MkdirTemp("/dev", "vouchsafe-") // elsewhere nodes may be without effect
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		path = filepath.Join(dir, "node")
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
			return nil, fmt.Errorf("reach the device %d:%d: %w", d.Major, d.Minor, err)
		}
	}
	// With O_EXCL the kernel refuses what somebody else has claimed.
	claim, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, deviceFault(err)
	}
	defer func() { _ = claim.Close() }() // the mapping claims it for itself
	var st unix.Stat_t
	if err := unix.Fstat(int(claim.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, invalid("the device is no block device")
	}
	f, err := os.OpenFile(fdPath(claim), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return blockDevice{f, size, fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))}, nil
}

func deviceFault(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fault.New(fault.NotFound, fmt.Errorf("there is no such device: %w", err))
	case errors.Is(err, unix.EBUSY):
		return fault.New(fault.VolumeBusy, err)
	}
	return err
}

func (linux) node(name string) string { return dm.Named(name).Path() }

// mapDevice hands the key over in the calling thread's own keyring, of which
// nobody but the kernel can read it, and takes it out again.
func (l linux) mapDevice(name string, t dm.Target, key secret.Bytes) (string, error) {
	if key.Len() > 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		id, err := unix.AddKey("logon", keyPrefix+name, key.Reveal(), unix.KEY_SPEC_THREAD_KEYRING)
		if err != nil {
			return "", fmt.Errorf("hand the key to the kernel: %w", err)
		}
		defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0) }()
	}
	d, err := dm.Open(name, t)
	return d.Path(), err
}

// Others may look at a mapping that is new or was just unmounted, and are done soon.
const (
	unmapTries = 40
	unmapPause = 50 * time.Millisecond
)

func (linux) unmapDevice(ctx context.Context, name string) error {
	for try := 1; ; try++ {
		err := dm.Named(name).Close()
		if !errors.Is(err, unix.EBUSY) || try == unmapTries {
			return err
		}
		if ended := pause.For(ctx, unmapPause); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

func (linux) failDevice(name string, sectors int64) error { return dm.Named(name).Fail(sectors) }

const zeroed = 1 << 20

func (linux) zero(node string) error {
	f, err := os.OpenFile(node, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		zeros := aligned(int(min(zeroed, size/2/sectorSize*sectorSize)))
		for _, at := range []int64{0, (size - int64(len(zeros))) / sectorSize * sectorSize} {
			if _, err = f.WriteAt(zeros, at); err != nil {
				break
			}
		}
	}
	return errors.Join(err, f.Close())
}

// aligned returns n zero bytes at an address that direct I/O takes.
func aligned(n int) []byte {
	b := make([]byte, n+sectorSize)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (sectorSize - 1)
	return b[skip:][:n]
}

func (linux) run(ctx context.Context, name string, args ...string) error {
	_, err := program.Set{}.Run(ctx, name, nil, args...)
	if errors.Is(err, program.ErrAbsent) {
		return fault.New(fault.Unsupported, err)
	}
	return err
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func (linux) mount(node string, dir *os.File, filesystem string, flags uintptr) error {
	if err := unix.Mount(node, fdPath(dir), filesystem, flags|unix.MS_NOATIME, ""); err != nil {
		// What a key opened is what its owner wrote, so a filesystem that cannot be
		// mounted is one that was never made, or an older state of its parts.
		return fault.New(fault.VolumeRefused, fmt.Errorf("mount the volume as %s: %w", filesystem, driver.Filesystem(filesystem, err)))
	}
	return nil
}

func (linux) unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // somebody else did
		return nil
	}
	return err
}

func (linux) link(node, path string) error { return os.Symlink(node, path) }

func (linux) unlink(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
