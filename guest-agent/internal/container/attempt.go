package container

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempt reads a file in the poller without waiting, which os.File cannot, and
// waits without reading, so that nobody who waits needs memory for what may come.
// One goroutine at a time may use it.
type attempt struct {
	raw syscall.RawConn // nil for a file that cannot be read so

	// Of the read under way. Its function is made once: reads are many.
	buf  []byte
	n    int
	err  error
	once func(fd uintptr) bool
}

func newAttempt(f *os.File) attempt {
	raw, err := f.SyscallConn()
	if err != nil {
		raw = nil // closed; so says read
	}
	return attempt{raw: raw}
}

// read returns what is there. It fails with unix.EAGAIN if that is nothing, with
// os.ErrDeadlineExceeded after the file's deadline, and with fs.ErrClosed.
func (a *attempt) read(buf []byte) (int, error) {
	if a.raw == nil {
		return 0, fs.ErrClosed
	}
	if a.once == nil {
		a.once = func(fd uintptr) bool {
			a.n, a.err = unix.Read(int(fd), a.buf)
			for errors.Is(a.err, unix.EINTR) {
				a.n, a.err = unix.Read(int(fd), a.buf)
			}
			return true
		}
	}
	a.buf = buf
	err := a.raw.Read(a.once)
	a.buf = nil
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, err
	case err != nil:
		return 0, fs.ErrClosed // the poller has a word of its own for it
	case a.err != nil:
		return 0, a.err
	}
	return a.n, nil
}

// wait returns when a read would not fail with unix.EAGAIN.
func (a *attempt) wait() {
	if a.raw == nil {
		return
	}
	_ = a.raw.Read(func(fd uintptr) bool { // the next read tells of an error too
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		n, err := unix.Poll(p, 0)
		return n != 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}
