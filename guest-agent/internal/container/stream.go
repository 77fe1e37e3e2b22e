package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainTime is how long a stream stays open after its process has exited
	// while something else still holds it (kata-agent 2.5).
	drainTime = 500 * time.Millisecond
	// drainSize bounds what may be read after that time: the most that a pipe
	// can hold by default rules, so nothing that was written in time is lost.
	drainSize = 1 << 20
	// maxRead bounds one read; a message of the protocol is at most 4 MiB.
	maxRead = 1 << 20
)

// longAgo as a deadline makes every wait on a file end at once.
var longAgo = time.Unix(1, 0)

// output is one of a process's output streams. Bytes wait in the pipe until
// someone reads them, so a process that writes faster than it is read is slowed
// down, not buffered without limit.
type output struct {
	f     *os.File
	owned bool          // close f at its end; a console serves two directions
	turn  chan struct{} // holds one token: one reader at a time

	mu       sync.Mutex
	deadline time.Time // zero until the process has exited

	// Only the reader that holds the token uses these.
	ended bool
	rest  int // what may still be read after the deadline
	spare []byte
}

func newOutput(f *os.File, owned bool) *output {
	return &output{f: f, owned: owned, turn: make(chan struct{}, 1), rest: drainSize}
}

// read returns up to size bytes, waiting for the first one. No bytes and no
// error mean the end of the stream.
func (o *output) read(ctx context.Context, size int) ([]byte, error) {
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-o.turn }()
	if o.ended {
		return nil, nil
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = o.f.SetReadDeadline(longAgo)
		close(fired)
	})
	defer func() {
		if !stop() {
			<-fired
			o.restoreDeadline()
		}
	}()
	buf := o.buffer(min(max(size, 1), maxRead))
	n, err := o.f.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n, err = o.drain(buf)
	}
	if n > 0 {
		return o.give(buf, n), nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) || errors.Is(err, fs.ErrClosed) {
		// EIO: the last holder of a terminal's other side is gone.
		o.end()
		return nil, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, err
}

// buffer returns room for a read. A process that says little is read into the
// same buffer every time.
func (o *output) buffer(size int) []byte {
	if cap(o.spare) < size {
		o.spare = make([]byte, size)
	}
	return o.spare[:size]
}

// give returns the n bytes read into buf for the caller to keep: the buffer
// itself if they fill most of it, else a copy of their size.
func (o *output) give(buf []byte, n int) []byte {
	if n > len(buf)/2 && cap(buf) == len(buf) {
		o.spare = nil
		return buf[:n]
	}
	return bytes.Clone(buf[:n])
}

// drain takes what lies in the pipe although the deadline is over, without
// waiting for more.
func (o *output) drain(buf []byte) (n int, err error) {
	buf = buf[:min(len(buf), o.rest)]
	if len(buf) == 0 {
		return 0, io.EOF
	}
	// A passed deadline fails even a read that need not wait.
	if err := o.f.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	raw, err := o.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), buf)
		return true
	})
	o.restoreDeadline()
	if n <= 0 {
		if err == nil && (readErr == nil || errors.Is(readErr, unix.EAGAIN)) {
			err = io.EOF
		}
		return 0, errors.Join(err, readErr)
	}
	o.rest -= n
	return n, nil
}

func (o *output) end() {
	o.ended, o.spare = true, nil
	if o.owned {
		_ = o.f.Close() // only a read end: nothing can be lost
	}
}

// exited starts the drain time.
func (o *output) exited(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deadline = now.Add(drainTime)
	_ = o.f.SetReadDeadline(o.deadline) // fails only on a closed file
}

func (o *output) restoreDeadline() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.f.SetReadDeadline(o.deadline)
}

// input is a process's standard input.
type input struct {
	f        *os.File
	terminal bool
	turn     chan struct{} // holds one token: one writer at a time
}

// endOfTransmission is what a person types to end input on a terminal (^D).
const endOfTransmission = 0x04

func newInput(f *os.File, terminal bool) *input {
	return &input{f: f, terminal: terminal, turn: make(chan struct{}, 1)}
}

// write waits until all of data is taken, ctx is done or the stream is closed.
func (i *input) write(ctx context.Context, data []byte) (int, error) {
	select {
	case i.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-i.turn }()
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = i.f.SetWriteDeadline(longAgo)
		close(fired)
	})
	n, err := i.f.Write(data)
	if !stop() {
		<-fired
		_ = i.f.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, ctx.Err()
	case errors.Is(err, fs.ErrClosed), errors.Is(err, unix.EPIPE), errors.Is(err, unix.EIO):
		return n, ErrStdinClosed
	}
	return n, err
}

// close ends the input. It does not wait for a writer: that one gets
// [ErrStdinClosed]. Of a terminal only one direction ends, by ^D.
func (i *input) close(ctx context.Context) error {
	if i.terminal {
		_, err := i.write(ctx, []byte{endOfTransmission})
		return err
	}
	if err := i.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
