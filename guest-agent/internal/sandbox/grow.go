package sandbox

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Grow makes the filesystem of a volume larger while it is mounted, ext4 or XFS,
// to at most size bytes (0: the whole disk). It never makes one smaller.
func (s *Sandbox) Grow(path string, size uint64) error {
	f, err := s.volume(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("volume %q: %w", path, err)
	}
	var g grower
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		g = growExt4{f, st}
	case unix.XFS_SUPER_MAGIC:
		if g, err = openXFS(f); err != nil {
			return fmt.Errorf("volume %q: %w", path, err)
		}
	default:
		return invalidf("volume %q is neither an ext4 nor an XFS filesystem, which alone can grow", path)
	}
	disk, err := diskSize(f)
	if err != nil {
		return fmt.Errorf("volume %q: %w", path, err)
	}
	blocks, unit := g.blocks()
	switch {
	case size == 0:
		size = disk
	case size > disk:
		return invalidf("volume %q cannot have %d bytes, its disk has %d", path, size, disk)
	case size < blocks*unit:
		return invalidf("volume %q cannot become smaller", path)
	}
	if size/unit <= blocks {
		return nil
	}
	if err := g.grow(size / unit); err != nil {
		return fmt.Errorf("grow volume %q: %w", path, err)
	}
	return nil
}

// grower is a filesystem that is mounted.
type grower interface {
	blocks() (number, size uint64)
	grow(blocks uint64) error
}

func ioctl(f *os.File, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

type growExt4 struct {
	f  *os.File
	st unix.Statfs_t
}

func (g growExt4) blocks() (number, size uint64) {
	return g.st.Blocks, uint64(g.st.Bsize) //nolint:gosec // the kernel's
}

func (g growExt4) grow(blocks uint64) error {
	const resizeFS = 0x40086610 // EXT4_IOC_RESIZE_FS (Linux, fs/ext4/ext4.h), the size in blocks
	return ioctl(g.f, resizeFS, unsafe.Pointer(&blocks))
}

// growXFS has what XFS says of its shape (Linux, fs/xfs/libxfs/xfs_fs.h).
type growXFS struct {
	f                *os.File
	blockSize, inode uint32 // bytes; percentage of inodes at most, which stays
	data             uint64 // blocks
}

func openXFS(f *os.File) (growXFS, error) {
	const (
		geometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
		size     = 112        // of struct xfs_fsop_geom_v1
		atInodes = 28
		atData   = 32
	)
	var raw [size]byte
	if err := ioctl(f, geometry, unsafe.Pointer(&raw)); err != nil {
		return growXFS{}, fmt.Errorf("ask for its shape: %w", err)
	}
	g := growXFS{f, binary.NativeEndian.Uint32(raw[:]), binary.NativeEndian.Uint32(raw[atInodes:]), binary.NativeEndian.Uint64(raw[atData:])}
	if g.blockSize == 0 {
		return growXFS{}, invalidf("its blocks have no size")
	}
	return g, nil
}

func (g growXFS) blocks() (number, size uint64) { return g.data, uint64(g.blockSize) }

func (g growXFS) grow(blocks uint64) error {
	const growData = 0x4010586e // XFS_IOC_FSGROWFSDATA, of struct xfs_growfs_data
	in := struct {
		blocks uint64
		inode  uint32
		_      uint32
	}{blocks: blocks, inode: g.inode}
	return ioctl(g.f, growData, unsafe.Pointer(&in))
}

// diskSize is that of the device below a file, in bytes. A node of its own for
// the device is enough to ask.
func diskSize(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	raw, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/size", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return 0, err
	}
	var sectors uint64
	if _, err := fmt.Sscan(string(raw), &sectors); err != nil || sectors > math.MaxUint64/512 {
		return 0, fmt.Errorf("the size of the disk is %.32q", raw)
	}
	return sectors * 512, nil
}
