package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cgroup"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// Container is one container of the runtime. Its methods may be called
// concurrently.
type Container struct {
	id          string
	bundle      string
	cgroup      string // as the spec says
	runtime     *Runtime
	process     specs.Process // of the spec that it was created from
	processes   *processes
	supervisors sync.WaitGroup // one for each process that was started

	mu      sync.Mutex
	started bool
	left    bool // the cgroup
}

// ID returns the container's name in the runtime.
func (c *Container) ID() string { return c.id }

// Process returns the process with the given exec id; the empty id means the
// container's first process. It fails with [ErrNotFound].
func (c *Container) Process(execID string) (*Process, error) { return c.processes.get(execID) }

// init returns the first process, which exists from creation to deletion.
func (c *Container) init() *Process {
	p, err := c.processes.get("")
	if err != nil {
		panic("container without its first process") // Create would have failed
	}
	return p
}

// PID returns the first process's number in the agent's pid namespace.
func (c *Container) PID() int { return c.init().pid }

// Alive fails once the number of the first process may be another's.
func (c *Container) Alive() error { return c.init().signal(0) }

// Start lets the first process execute its program, once.
func (c *Container) Start(ctx context.Context) error {
	c.mu.Lock()
	again := c.started
	c.started = true
	c.mu.Unlock()
	if again {
		return fmt.Errorf("start container: %w", ErrState)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.runtime.cli("").Start(ctx, c.id); err != nil {
		c.mu.Lock()
		c.started = false
		c.mu.Unlock()
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// Exec starts a further process. Without capabilities in p it gets those of the
// container's first process, not all (kata-agent 2.4).
func (c *Container) Exec(ctx context.Context, execID string, p *specs.Process) error {
	if execID == "" {
		return fmt.Errorf("process %q: %w", execID, ErrExists)
	}
	if c.init().hasExited() {
		return fmt.Errorf("exec: %w", ErrState)
	}
	spec := *p
	if spec.Capabilities == nil {
		spec.Capabilities = c.process.Capabilities
	}
	err := c.launch(ctx, execID, &spec, func(ctx context.Context, l launch) error {
		opts := &runc.ExecOpts{PidFile: l.pidFile, LogFile: l.log, Detach: true}
		if l.socket != nil {
			opts.ConsoleSocket = l.socket
		} else {
			opts.IO = l.pipes
		}
		cli := c.runtime.cli("")
		cli.LogFormat = runc.JSON
		return cli.Exec(ctx, c.id, spec, opts)
	})
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	return nil
}

// Signal sends sig to a process (kata-agent 2.7). For the first process (empty
// exec id) SIGKILL means every process of the container, and SIGTERM becomes
// SIGKILL when the process has no handler for it, because the kernel keeps such
// a signal from the first process of a pid namespace. A process that is gone is
// [ErrNoProcess], except that killing a dead container succeeds.
func (c *Container) Signal(ctx context.Context, execID string, sig unix.Signal) error {
	p, err := c.processes.get(execID)
	if err != nil {
		return err
	}
	if execID != "" {
		return p.signal(sig)
	}
	if sig == unix.SIGTERM && !p.hasExited() && !p.handles(sig) {
		sig = unix.SIGKILL
	}
	if sig == unix.SIGKILL {
		return c.killAll(ctx)
	}
	return p.signal(sig)
}

// killAll kills whatever is in the container's cgroup; the runtime freezes it
// meanwhile, so that nothing can fork away, and thaws it even if it was paused.
func (c *Container) killAll(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := c.runtime.cli("").Kill(ctx, c.id, int(unix.SIGKILL), &runc.KillOpts{All: true})
	if err == nil {
		return nil
	}
	p := c.init()
	if direct := p.signal(unix.SIGKILL); direct != nil && !errors.Is(direct, ErrNoProcess) {
		return errors.Join(err, direct)
	}
	c.runtime.log.Debug("the runtime could not kill the container; killed its first process", slog.String("container", c.id), slog.Any("err", err))
	return nil
}

// Pause freezes the container's processes.
func (c *Container) Pause(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.runtime.cli("").Pause(ctx, c.id); err != nil {
		return fmt.Errorf("pause container: %w", err)
	}
	return nil
}

// Resume thaws them.
func (c *Container) Resume(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.runtime.cli("").Resume(ctx, c.id); err != nil {
		return fmt.Errorf("resume container: %w", err)
	}
	return nil
}

// Update changes limits. Device rules in an update are ignored: runtimes send a
// meaningless "deny all" (kata-agent 2.6).
func (c *Container) Update(ctx context.Context, res *specs.LinuxResources) error {
	limits := *res
	limits.Devices = nil
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.runtime.cli("").Update(ctx, c.id, &limits); err != nil {
		return fmt.Errorf("update container: %w", err)
	}
	return nil
}

// Stats tells what the container's cgroup uses. The kernel is asked, not the
// runtime, as long as the first process lives.
func (c *Container) Stats(context.Context) (*runc.Stats, error) {
	cgroups, err := cgroup.Of(c.PID())
	if err != nil || c.init().hasExited() { // a process that has ended may have given its number to another
		return nil, fmt.Errorf("stats of container: %w", ErrState)
	}
	mounts, err := mountinfo.Self()
	if err != nil {
		return nil, fmt.Errorf("stats of container: %w", err)
	}
	return usage(cgroups.Dirs(mounts)), nil
}

// Delete kills what is left of the container and removes it from the runtime.
// It waits for the processes until ctx is done, and may be tried again. Waiting
// calls on the container's processes get their answers.
func (c *Container) Delete(ctx context.Context) error {
	idle := c.processes.close()
	if err := c.killRest(ctx); err != nil {
		return fmt.Errorf("delete container: %w", err)
	}
	select {
	case <-idle: // a start that was under way has ended, maybe with one more process
	case <-ctx.Done():
		return fmt.Errorf("delete container: wait for its processes: %w", ctx.Err())
	}
	if err := c.killRest(ctx); err != nil {
		return fmt.Errorf("delete container: %w", err)
	}
	for _, p := range c.processes.all() {
		if _, err := p.Wait(ctx); err != nil {
			return fmt.Errorf("delete container: wait for its processes: %w", err)
		}
	}
	run, cancel := bounded(ctx)
	defer cancel()
	if err := c.runtime.cli("").Delete(run, c.id, &runc.DeleteOpts{Force: true}); err != nil {
		return fmt.Errorf("delete container: %w", err)
	}
	c.leaveCgroup()
	c.supervisors.Wait() // all have exited, so this does not wait
	for _, p := range c.processes.all() {
		p.closeAll()
	}
	return removeFile(filepath.Join(c.bundle, "config.json"))
}

// leaveCgroup is for the deletion, which may be tried again after it succeeded
// in part.
func (c *Container) leaveCgroup() {
	c.mu.Lock()
	left := c.left
	c.left = true
	c.mu.Unlock()
	if !left {
		c.runtime.cgroups.leave(c.cgroup)
	}
}

// killRest kills unless every known process has exited. The deletion itself
// kills others that may be left in the cgroup.
func (c *Container) killRest(ctx context.Context) error {
	if slices.ContainsFunc(c.processes.all(), func(p *Process) bool { return !p.hasExited() }) {
		return c.killAll(ctx)
	}
	return nil
}
