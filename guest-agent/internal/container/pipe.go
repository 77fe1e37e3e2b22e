package container

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// pipes are the standard streams of a process without a terminal. It implements
// runc.IO and runc.StartCloser: the runtime inherits the far ends and hands
// them to the container.
type pipes struct {
	stdin          *os.File // our ends, in the poller so that waits can be interrupted
	stdout, stderr *os.File
	far            [3]*os.File // the container's ends, blocking
}

// newPipes gives the far ends to uid and gid, because a process that opens
// /dev/stdout anew needs permission on the pipe itself. Output of size bytes may
// wait for a reader; 0 is for as much as reads well.
func newPipes(uid, gid uint32, size int) (_ *pipes, err error) {
	p := &pipes{} // not a named result: that is nil by the time of the cleanup
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	if p.far[0], p.stdin, err = pipe("stdin", 1); err != nil {
		return nil, err
	}
	if p.stdout, p.far[1], err = pipe("stdout", 0); err != nil {
		return nil, err
	}
	if p.stderr, p.far[2], err = pipe("stderr", 0); err != nil {
		return nil, err
	}
	for _, f := range p.far[1:] {
		// What nobody asked for is not missed: the kernel has a size of its own.
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, cmp.Or(size, pipeSize)); err != nil && size != 0 {
			return nil, fmt.Errorf("give %s a size of %d bytes: %w", f.Name(), size, err)
		}
	}
	for _, f := range p.far {
		if err := f.Chown(int(uid), int(gid)); err != nil {
			return nil, fmt.Errorf("give %s to the process: %w", f.Name(), err)
		}
	}
	return p, nil
}

// pipeSize is what a process may write ahead of its reader where nobody says
// otherwise: a reader finds several pieces at a time, and waits less often. The kernel has memory for what is in a
// pipe, not for what could be.
const pipeSize = 256 << 10

// pipe makes end number ours (0 reads, 1 writes) non-blocking, so that Go's
// poller takes it, and leaves the other as a program expects it.
func pipe(name string, ours int) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make a pipe for %s: %w", name, err)
	}
	if err := unix.SetNonblock(fds[ours], true); err != nil {
		err = errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
		return nil, nil, fmt.Errorf("make a pipe for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// Set gives the far ends to the runtime's process.
func (p *pipes) Set(cmd *exec.Cmd) { cmd.Stdin, cmd.Stdout, cmd.Stderr = p.far[0], p.far[1], p.far[2] }

// CloseAfterStart drops our copies of the far ends: only then does the end of
// the process mean the end of its streams.
func (p *pipes) CloseAfterStart() error {
	var errs []error
	for i, f := range p.far {
		if f != nil {
			errs = append(errs, f.Close())
		}
		p.far[i] = nil
	}
	return errors.Join(errs...)
}

// Close closes every end that is still open. It is for a start that failed.
func (p *pipes) Close() error {
	errs := []error{p.CloseAfterStart()}
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Stdin, Stdout and Stderr complete runc.IO.
func (p *pipes) Stdin() io.WriteCloser { return p.stdin }

// Stdout is our end of the process's standard output.
func (p *pipes) Stdout() io.ReadCloser { return p.stdout }

// Stderr is our end of the process's standard error.
func (p *pipes) Stderr() io.ReadCloser { return p.stderr }
