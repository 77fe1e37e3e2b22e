package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempt reads a file in the poller as os.File cannot: it says when it is about
// to wait, and holds no memory for what may come while it does. One goroutine at
// a time may use it.
type attempt struct {
	raw syscall.RawConn // nil for a file that is closed

	// Of the read under way. The function is made once: reads are many.
	ctx  context.Context //nolint:containedctx // of the read
	from *output
	size int
	to   Sink
	undo func() // nil until it waits
	n    int
	err  error
	try  func(fd uintptr) bool
}

func newAttempt(f *os.File) attempt {
	raw, err := f.SyscallConn()
	if err != nil {
		raw = nil
	}
	return attempt{raw: raw}
}

// read puts what is there into the sink, and waits for something if there is
// nothing. It fails with os.ErrDeadlineExceeded after the file's deadline or the
// end of ctx, and with fs.ErrClosed.
func (a *attempt) read(ctx context.Context, from *output, size int, to Sink) (int, error) {
	if a.raw == nil {
		return 0, fs.ErrClosed
	}
	if a.try == nil {
		a.try = a.there
	}
	a.ctx, a.from, a.size, a.to = ctx, from, size, to
	err := a.raw.Read(a.try)
	if a.undo != nil {
		a.undo()
	}
	a.ctx, a.from, a.to, a.undo = nil, nil, nil, nil
	return result(a.n, a.err, err)
}

// there reads once, and says whether that was all there is to do.
func (a *attempt) there(fd uintptr) bool {
	a.n, a.err = readOnce(fd, a.to.Room(a.size))
	if !errors.Is(a.err, unix.EAGAIN) {
		return true
	}
	if a.undo == nil {
		a.undo = a.from.interruptedBy(a.ctx)
	}
	a.to.Wait()
	return false
}

// once reads what is there, and fails with unix.EAGAIN if that is nothing.
func (a *attempt) once(buf []byte) (n int, err error) {
	if a.raw == nil {
		return 0, fs.ErrClosed
	}
	var failed error
	err = a.raw.Read(func(fd uintptr) bool {
		n, failed = readOnce(fd, buf)
		return true
	})
	return result(n, failed, err)
}

func readOnce(fd uintptr, buf []byte) (n int, err error) {
	for {
		n, err = unix.Read(int(fd), buf)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// result joins what a read says with what the poller says.
func result(n int, read, poller error) (int, error) {
	switch {
	case errors.Is(poller, os.ErrDeadlineExceeded):
		return 0, poller
	case poller != nil:
		return 0, fs.ErrClosed // the poller has a word of its own for it
	case read != nil:
		return 0, read
	}
	return n, nil
}
