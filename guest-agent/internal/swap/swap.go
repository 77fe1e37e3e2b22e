// Package swap lets the guest's memory be swapped out to a disk of the host's,
// under a random key and with a tag for each sector: the host can neither read
// what was swapped out nor give back something else. Nothing is ever swapped to a
// disk in the clear.
package swap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
)

// Volumes encrypts disks; a [securemount.Mounter] does.
type Volumes interface {
	Mount(ctx context.Context, v securemount.Volume) error
	Unmount(ctx context.Context, mountPoint string) error
}

// Config is what a Space works with.
type Config struct {
	Volumes Volumes
	// Dir is where the names of its disks lie. It is made if absent.
	Dir string
	// On and Off are the kernel's swapon and swapoff; nil for these themselves.
	On, Off func(node string) error
}

// Space is what the guest swaps to. It is safe for concurrent use.
type Space struct {
	cfg Config

	mu    sync.Mutex
	disks map[string]bool // by the path of their names; false while being added
}

// New returns a Space without disks.
func New(cfg Config) *Space {
	if cfg.On == nil {
		cfg.On, cfg.Off = swapOn, swapOff
	}
	return &Space{cfg: cfg, disks: map[string]bool{}}
}

// maxDisks bounds what one guest swaps to; Linux itself takes 32 at most.
const maxDisks = 8

// Add encrypts a disk anew and swaps to it from now on. What is on the disk is
// lost, so it must be empty.
func (s *Space) Add(ctx context.Context, b device.Block) (err error) {
	name := filepath.Join(s.cfg.Dir, b.Name)
	if err := s.reserve(name); err != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			delete(s.disks, name)
		} else {
			s.disks[name] = true
		}
	}()
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	v := securemount.Volume{Device: securemount.Device{Path: b.Path}, Format: true, Integrity: true, Filesystem: securemount.NoFilesystem, MountPoint: name}
	if err := s.cfg.Volumes.Mount(ctx, v); err != nil {
		return err
	}
	err = format(name)
	if err == nil {
		err = s.cfg.On(name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("swap to %s: %w", b.Name, err), s.cfg.Volumes.Unmount(context.WithoutCancel(ctx), name))
	}
	return nil
}

// ErrInUse says that a disk is one already, or that there are enough.
var ErrInUse = errors.New("the disk is in use for this already, or there are enough")

func (s *Space) reserve(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.disks[name]; there || len(s.disks) == maxDisks {
		return ErrInUse
	}
	s.disks[name] = false
	return nil
}

// Close swaps everything in again and gives the disks up. It may be called again
// for those that could not be.
func (s *Space) Close(ctx context.Context) error {
	s.mu.Lock()
	var names []string
	for name, added := range s.disks {
		if added {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		err := s.cfg.Off(name)
		if errors.Is(err, unix.EINVAL) { // it is none any more
			err = nil
		}
		if err == nil {
			err = s.cfg.Volumes.Unmount(ctx, name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("no longer swap to %s: %w", filepath.Base(name), err))
			continue
		}
		s.mu.Lock()
		delete(s.disks, name)
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// format writes the header of a swap area: union swap_header of Linux,
// include/linux/swap.h, in the first page.
func format(node string) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, 2)
	if err == nil {
		var header []byte
		if header, err = headerOf(size, os.Getpagesize()); err == nil {
			_, err = f.WriteAt(header, 0)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func headerOf(size int64, page int) ([]byte, error) {
	const (
		info    = 1024 // version, last page, bad pages
		fewest  = 10   // pages, as mkswap has it
		largest = 1<<32 - 1
	)
	pages := size / int64(page)
	if pages < fewest || pages > largest {
		return nil, fmt.Errorf("a disk of %d bytes cannot be swapped to", size)
	}
	b := make([]byte, page)
	binary.NativeEndian.PutUint32(b[info:], 1)
	binary.NativeEndian.PutUint32(b[info+4:], uint32(pages-1))
	copy(b[page-10:], "SWAPSPACE2")
	return b, nil
}

func swapOn(node string) error { return swapCall(unix.SYS_SWAPON, node) }

func swapOff(node string) error { return swapCall(unix.SYS_SWAPOFF, node) }

func swapCall(number uintptr, node string) error {
	path, err := unix.BytePtrFromString(node)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(number, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
