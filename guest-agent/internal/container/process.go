package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one process that the agent started in a container: its first one,
// or one that was added by [Container.Exec].
type Process struct {
	pid     int
	handle  *os.Process // nil if it was gone before it could be opened
	stdin   *input
	stdout  *output
	stderr  *output  // nil with a terminal
	console *os.File // nil without a terminal

	exited chan struct{} // closed after status is set
	status int
}

// stdio is what a start gave us to talk to the process.
type stdio struct {
	pipes   *pipes   // without a terminal
	console *os.File // with one
}

func newProcess(handle *os.Process, pid int, s stdio) *Process {
	p := &Process{pid: pid, handle: handle, console: s.console, exited: make(chan struct{})}
	if s.console != nil {
		p.stdin, p.stdout = newInput(s.console, true), newOutput(s.console, false)
		return p
	}
	p.stdin = newInput(s.pipes.stdin, false)
	p.stdout, p.stderr = newOutput(s.pipes.stdout, true), newOutput(s.pipes.stderr, true)
	return p
}

// supervise waits for the exit. It ends with the process.
func (p *Process) supervise(exit <-chan int, now func() time.Time) {
	p.status = <-exit
	t := now()
	p.stdout.exited(t)
	if p.stderr != nil {
		p.stderr.exited(t)
		// Wakes a writer that waits for a reader that is no more. A console is
		// closed with the container, for its output may still be wanted.
		_ = p.stdin.f.Close()
	}
	if p.handle != nil {
		_ = p.handle.Release()
	}
	close(p.exited)
}

// PID is the process's number in the agent's pid namespace.
func (p *Process) PID() int { return p.pid }

// Wait returns the exit code, 128 + signal for a killed process. It can be asked
// any number of times, also long after the exit.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.exited:
		return p.status, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Stdout waits for output, puts up to size bytes of it into the sink and returns
// how many. None and no error mean the end of the stream, at the latest half a
// second after the exit of the process (kata-agent 2.5). With a terminal this is
// all its output.
func (p *Process) Stdout(ctx context.Context, size int, to Sink) (int, error) {
	return p.stdout.read(ctx, size, to)
}

// Stderr is like Stdout. With a terminal it is at its end from the start.
func (p *Process) Stderr(ctx context.Context, size int, to Sink) (int, error) {
	if p.stderr == nil {
		return 0, nil
	}
	return p.stderr.read(ctx, size, to)
}

// WriteStdin waits until the process's input has taken all of data.
func (p *Process) WriteStdin(ctx context.Context, data []byte) (int, error) {
	return p.stdin.write(ctx, data)
}

// CloseStdin ends the process's input. It is no error to do so twice.
func (p *Process) CloseStdin(ctx context.Context) error { return p.stdin.close(ctx) }

// Resize sets the size of the terminal in characters. It fails with
// [ErrNoTerminal] if there is none.
func (p *Process) Resize(rows, columns uint16) error {
	if p.console == nil {
		return ErrNoTerminal
	}
	return resize(p.console, rows, columns)
}

// hasExited reports whether the exit status is known.
func (p *Process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// signal fails with [ErrNoProcess] when the process is gone.
func (p *Process) signal(sig unix.Signal) error {
	if p.handle == nil || p.hasExited() {
		return ErrNoProcess
	}
	err := p.handle.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrInvalid) {
		return ErrNoProcess // ErrInvalid: released in the meantime
	}
	return err
}

// handles reports whether the process has installed a handler for sig. When that
// cannot be told, it says yes: the signal is then sent as it is.
func (p *Process) handles(sig unix.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err != nil || bits&(1<<(uint(sig)-1)) != 0
		}
	}
	return true
}

// closeAll gives up the streams. Whoever still reads gets the end.
func (p *Process) closeAll() {
	for _, o := range []*output{p.stdout, p.stderr} {
		if o != nil {
			_ = o.f.Close()
		}
	}
	_ = p.stdin.f.Close()
}

// processes is the table of a container's processes by their exec id. The first
// process has the empty id.
type processes struct {
	mu      sync.Mutex
	table   map[string]*Process // nil while being started
	order   []string            // exec ids, oldest first
	pending int                 // how many are being started
	closed  bool
	idle    chan struct{} // closed when closed is set and pending is 0
}

func newProcesses() *processes {
	return &processes{table: map[string]*Process{}, idle: make(chan struct{})}
}

// keepExited is how many exited processes of a container stay answerable. A
// probe that runs every second would otherwise grow the table without end.
const keepExited = 128

// reserve claims an id for a process that is about to start.
func (t *processes) reserve(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrState
	}
	if _, ok := t.table[id]; ok {
		return fmt.Errorf("process %q: %w", id, ErrExists)
	}
	t.forgetOldest()
	t.table[id] = nil
	t.pending++
	return nil
}

// set fills or, with nil, gives up a reservation.
func (t *processes) set(id string, p *Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p == nil {
		delete(t.table, id)
	} else {
		t.table[id] = p
		t.order = append(t.order, id)
	}
	t.pending--
	if t.closed && t.pending == 0 {
		close(t.idle)
	}
}

func (t *processes) get(id string) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.table[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("process %q: %w", id, ErrNotFound)
}

// close refuses further processes. The channel is closed when no start is under
// way any more.
func (t *processes) close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && t.pending == 0 {
		close(t.idle)
	}
	t.closed = true
	return t.idle
}

// all lists the processes that were started.
func (t *processes) all() []*Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*Process
	for _, id := range t.order {
		list = append(list, t.table[id])
	}
	return list
}

// forgetOldest drops exited processes beyond keepExited, never the first one.
func (t *processes) forgetOldest() {
	var exited []string
	for _, id := range t.order {
		if id != "" && t.table[id].hasExited() {
			exited = append(exited, id)
		}
	}
	if len(exited) < keepExited {
		return
	}
	drop := map[string]bool{}
	for _, id := range exited[:len(exited)-keepExited+1] {
		t.table[id].closeAll()
		delete(t.table, id)
		drop[id] = true
	}
	var kept []string
	for _, id := range t.order {
		if !drop[id] {
			kept = append(kept, id)
		}
	}
	t.order = kept
}
