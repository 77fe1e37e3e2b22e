package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Reaper collects the orphans of the process tree, and nothing else.
//
// An OCI runtime starts a container and goes away, so the container's first
// process becomes an orphan, and so does every process whose parent dies. The
// agent adopts them: as PID 1 of its namespace, or as a child subreaper. It must
// wait for all of them, yet must not take the exit status of a child that some
// goroutine started with os/exec and will wait for itself; wait4(-1) would.
//
// The kernel keeps the two apart, if asked: a child belongs to the thread that
// forked it, and an orphan is given to the first living thread of the process
// that adopts it, which is the main thread. __WNOTHREAD limits a wait to the
// children of the calling thread. So a wait with that flag on the main thread,
// which must itself never fork, sees the orphans and only them. Package main
// locks its goroutine to the main thread in an init function and calls
// [Reaper.Run] from it; everything else runs in other goroutines, so on other
// threads.
//
// One thing would break it: a goroutine that locks its thread and ends without
// unlocking. Its thread dies, and the kernel hands every child that was ever
// forked on that thread, by whichever goroutine, to the main thread. Nothing in
// the agent does that; sandbox.makeNamespace says how to do without.
type Reaper struct {
	mu       sync.Mutex
	claimed  map[int]chan<- int // where the status of an adopted process goes
	early    map[int]int        // exits of unknown processes while one is being adopted
	adopting int
}

// errNotMain says that Run was called from the wrong thread.
var errNotMain = errors.New("the reaper must run on the process's main thread")

// NewReaper makes the process adopt orphans. From then on someone must be in
// [Reaper.Run], or zombies stay.
func NewReaper() (*Reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become a child subreaper: %w", err)
	}
	return &Reaper{claimed: map[int]chan<- int{}, early: map[int]int{}}, nil
}

// Run collects orphans until ctx is done. It must be called on the main thread
// of the process and fails at once elsewhere.
func (r *Reaper) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() != unix.Getpid() {
		return errNotMain
	}
	children := make(chan os.Signal, 1) // one pending wake-up is enough: collect takes all
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	for {
		if err := r.collect(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-children:
		}
	}
}

func (r *Reaper) collect() error {
	for {
		more, err := r.collectOne()
		if err != nil || !more {
			return err
		}
	}
}

// collectOne holds the lock from the wait to the delivery, so that a process
// which is neither claimed nor in early cannot have been reaped: see Adopt.
// The wait does not block.
func (r *Reaper) collectOne() (more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ws unix.WaitStatus
	pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL|unix.WNOTHREAD, nil)
	switch {
	case errors.Is(err, unix.EINTR):
		return true, nil
	case errors.Is(err, unix.ECHILD):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("wait for orphans: %w", err)
	case pid == 0:
		return false, nil
	}
	if c, ok := r.claimed[pid]; ok {
		delete(r.claimed, pid)
		c <- exitCode(ws)
	} else if r.adopting > 0 {
		r.early[pid] = exitCode(ws)
	}
	return true, nil
}

// exitCode follows the shell: 128 + the number of the signal that killed it.
func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// Adopt runs start, which must leave an orphan behind and return its pid, and
// claims the exit status of that orphan, even when it is gone by then. The
// channel gets the status once. The handle refers to the process and to no
// later one that may get the same pid; it is nil if the process is gone.
func (r *Reaper) Adopt(start func() (pid int, err error)) (handle *os.Process, exit <-chan int, err error) {
	r.mu.Lock()
	r.adopting++
	r.mu.Unlock()
	pid, err := start()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopting--
	defer func() {
		if r.adopting == 0 {
			clear(r.early)
		}
	}()
	if err != nil {
		return nil, nil, err
	}
	c := make(chan int, 1)
	if code, gone := r.early[pid]; gone {
		delete(r.early, pid)
		c <- code
		return nil, c, nil
	}
	// Not reaped yet, and cannot be while the lock is held, so the pid still
	// means the process that start made. If it is no child of ours, its status
	// will never come: an error is better than a wait without end.
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return nil, nil, fmt.Errorf("process %d was not left to the agent: %w", pid, err)
	}
	if handle, err = os.FindProcess(pid); err != nil {
		return nil, nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	r.claimed[pid] = c
	return handle, c, nil
}
