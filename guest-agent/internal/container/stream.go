package container

import (
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

// Sink is where a read puts its bytes.
type Sink interface {
	// Room returns memory for size bytes, which is asked for only when there may
	// be something to put there.
	Room(size int) []byte
	// Wait is told before a read waits. What Room has returned is not used any
	// more.
	Wait()
}

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
	take  attempt
}

func newOutput(f *os.File, owned bool) *output {
	return &output{f: f, owned: owned, turn: make(chan struct{}, 1), rest: drainSize, take: newAttempt(f)}
}

// read puts up to size bytes into the sink and returns how many, waiting for the
// first one. None and no error mean the end of the stream.
func (o *output) read(ctx context.Context, size int, to Sink) (int, error) {
	if err := o.queue(ctx, to); err != nil {
		return 0, err
	}
	defer func() { <-o.turn }()
	if o.ended {
		return 0, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, err // what is there is for who still listens
	}
	n, err := o.take.read(ctx, o, min(max(size, 1), maxRead), to)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		n, err = o.drain(to.Room(min(max(size, 1), maxRead)))
	}
	if n > 0 {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) || errors.Is(err, fs.ErrClosed) {
		// EIO: the last holder of a terminal's other side is gone.
		o.end()
		return 0, nil
	}
	return 0, err
}

// queue waits for the token.
func (o *output) queue(ctx context.Context, to Sink) error {
	select {
	case o.turn <- struct{}{}:
		return nil
	default:
	}
	to.Wait()
	select {
	case o.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// interruptedBy lets the end of ctx end a wait on the file. The function that it
// returns takes that back.
func (o *output) interruptedBy(ctx context.Context) func() {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = o.f.SetReadDeadline(longAgo)
		close(fired)
	})
	return func() {
		if !stop() {
			<-fired
			o.restoreDeadline()
		}
	}
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
	n, err = o.take.once(buf)
	o.restoreDeadline()
	if n <= 0 {
		if errors.Is(err, unix.EAGAIN) {
			err = io.EOF
		}
		return 0, err
	}
	o.rest -= n
	return n, nil
}

func (o *output) end() {
	o.ended = true
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
