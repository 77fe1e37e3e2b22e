// Package tsm is what a guest's kernel offers for attestation: reports by
// configfs-tsm, measurement registers in sysfs, device nodes, and the logs that
// the firmware left. It knows the interfaces, not the platforms behind them:
// what a report means is for snp, tdx and cca to say.
//
// Everything goes through a [Kernel]. [Linux] is the real one; package tsmtest
// has one made of memory, so that each way through the attesters is tested on a
// machine that has no such hardware. There is no third: nothing here makes
// evidence up.
package tsm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// ErrTooLarge means that a file of the kernel holds more than its reader takes.
var ErrTooLarge = errors.New("more bytes than are allowed")

// A Kernel is the file system and the devices of the guest. Names are slash
// separated and relative to the root, for example "sys/kernel/config". Errors
// wrap those of package syscall and of io/fs. Implementations are safe for
// concurrent use.
type Kernel interface {
	// ReadFile returns the whole of a file, or an error that wraps
	// [ErrTooLarge] if that is more than limit bytes.
	ReadFile(name string, limit int) ([]byte, error)
	// WriteFile writes the data to a file that exists, in one write.
	WriteFile(name string, data []byte) error
	// Mkdir makes a directory; in configfs that makes an object.
	Mkdir(name string) error
	// Remove removes an empty directory, or the object of a configfs one.
	Remove(name string) error
	// Exists tells whether there is a file, directory or device of the name.
	Exists(name string) bool
	// Ioctl asks a device node. What arg points to is the request's own.
	Ioctl(device string, request uint32, arg unsafe.Pointer) error
}

// ReadOptional reads a file that not every machine has. Without it the answer
// is nil.
func ReadOptional(k Kernel, name string, limit int) ([]byte, error) {
	raw, err := k.ReadFile(name, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// Linux is the kernel under a root directory, usually "/".
type Linux struct{ Root string }

func (l Linux) path(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%q is not a path below the root", name)
	}
	return filepath.Join(l.Root, name), nil
}

// ReadFile implements [Kernel].
func (l Linux) ReadFile(name string, limit int) (_ []byte, err error) {
	path, err := l.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("%s: %w: %d", path, ErrTooLarge, limit)
	}
	return raw, nil
}

// WriteFile implements [Kernel]. The file is neither made nor cut: attributes
// of the kernel are there or not, and each write to them is an act.
func (l Linux) WriteFile(name string, data []byte) error {
	path, err := l.path(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Mkdir implements [Kernel].
func (l Linux) Mkdir(name string) error {
	path, err := l.path(name)
	if err != nil {
		return err
	}
	return os.Mkdir(path, 0o700)
}

// Remove implements [Kernel].
func (l Linux) Remove(name string) error {
	path, err := l.path(name)
	if err != nil {
		return err
	}
	// Not os.Remove: that tries unlink first, which configfs answers with EPERM.
	if err := syscall.Rmdir(path); err != nil {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// Exists implements [Kernel].
func (l Linux) Exists(name string) bool {
	path, err := l.path(name)
	if err != nil {
		return false
	}
	_, err = os.Stat(path)
	return err == nil
}

// Ioctl implements [Kernel].
func (l Linux) Ioctl(device string, request uint32, arg unsafe.Pointer) (err error) {
	path, err := l.path(device)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		// A device may be interrupted by a signal of the Go runtime; asking
		// again is what the C library's users do too.
		for {
			_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(request), uintptr(arg))
			if errno != syscall.EINTR {
				return
			}
		}
	})
	if err == nil && errno != 0 {
		err = &fs.PathError{Op: "ioctl", Path: path, Err: errno}
	}
	return err
}
