// Package container runs containers through an OCI runtime program such as runc
// or crun, and keeps what the runtime forgets: the standard streams, the exit
// statuses and the processes that were added later.
//
// It knows the OCI runtime specification and nothing of the protocols above it;
// internal/kata translates. Its rule for concurrency: no lock is held while
// anything is waited for, be it a process, a stream or the runtime program, so a
// container that is stuck never delays another, nor a signal to itself.
package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// Errors that callers tell apart.
var (
	ErrNotFound    = errors.New("no such process")
	ErrExists      = errors.New("exists already")
	ErrState       = errors.New("the container is not in a state that allows this")
	ErrStdinClosed = errors.New("standard input is closed")
	ErrNoTerminal  = errors.New("the process has no terminal")
	// ErrNoProcess has the words that runtimes look for (kata-agent 1.5).
	ErrNoProcess = errors.New("ESRCH: No such process")
)

// runtimeTimeout bounds one run of the OCI runtime program. It takes tens of
// milliseconds; when it hangs, an error is better than a call that never ends.
const runtimeTimeout = 60 * time.Second

// Config says how to run containers.
type Config struct {
	// Command is the OCI runtime: a path or a name to look up. Empty means the
	// first of runc and crun that is installed.
	Command string
	// Root is the directory where the runtime keeps its own state. It is made
	// if absent and should not outlive the machine.
	Root   string
	Reaper *Reaper
	// PipeSize is how many bytes of a process's output may wait for a reader; 0
	// is for 262144, or what the kernel has where it refuses that.
	PipeSize int
	Logger   *slog.Logger // nil discards
}

// Runtime starts containers. Its methods may be called concurrently.
type Runtime struct {
	command string
	root    string
	reaper  *Reaper
	log     *slog.Logger
	cgroups *cgroupParents
	pipe    int          // size of output pipes in bytes; 0 for the usual
	serial  atomic.Int64 // names files of one start
}

// New finds the OCI runtime and prepares its state directory.
func New(cfg Config) (*Runtime, error) {
	if cfg.Reaper == nil {
		return nil, errors.New("containers need a reaper")
	}
	command, err := findCommand(cfg.Command)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(cfg.Root)
	if err != nil || cfg.Root == "" {
		return nil, errors.New("the runtime's state directory is not usable")
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("the runtime's state directory: %w", err)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mounts, err := mountinfo.Self()
	if err != nil {
		return nil, fmt.Errorf("where cgroups are: %w", err)
	}
	return &Runtime{command: command, root: root, reaper: cfg.Reaper, log: log, pipe: cfg.PipeSize, cgroups: newCgroupParents(mounts)}, nil
}

func findCommand(name string) (string, error) {
	candidates := []string{"runc", "crun"}
	if name != "" {
		candidates = []string{name}
	}
	for _, c := range candidates {
		if path, err := exec.LookPath(c); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("no OCI runtime found: looked for %s", strings.Join(candidates, ", "))
}

// SupportsSeccomp asks the runtime itself; one that cannot say counts as no.
func (r *Runtime) SupportsSeccomp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	f, err := r.cli("").Features(ctx)
	if err != nil || f.Linux == nil || f.Linux.Seccomp == nil || f.Linux.Seccomp.Enabled == nil {
		return false
	}
	return *f.Linux.Seccomp.Enabled
}

// cli returns the command line of the runtime; log may be empty.
func (r *Runtime) cli(log string) *runc.Runc {
	c := &runc.Runc{Command: r.command, Root: r.root, Log: log}
	if log != "" {
		c.LogFormat = runc.JSON
	}
	return c
}

// bounded is for a run of the runtime program that must not be cut off because
// the caller went away: half a creation or deletion leaves a mess behind.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), runtimeTimeout)
}

// Create makes a container from spec and starts its first process up to the
// point where the program would be executed; [Container.Start] does that. The
// bundle is an existing directory that belongs to the caller; config.json is
// written into it. The spec's root must exist.
func (r *Runtime) Create(ctx context.Context, id, bundle string, spec *specs.Spec) (*Container, error) {
	if spec.Process == nil || spec.Root == nil {
		return nil, errors.New("the spec has no process or no root")
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("write the spec: %w", err)
	}
	path := filepath.Join(bundle, "config.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return nil, fmt.Errorf("write the spec: %w", err)
	}
	c := &Container{id: id, bundle: bundle, runtime: r, process: *spec.Process, processes: newProcesses()}
	if spec.Linux != nil {
		c.cgroup = spec.Linux.CgroupsPath
	}
	r.cgroups.enter(c.cgroup)
	err = c.launch(ctx, "", spec.Process, func(ctx context.Context, l launch) error {
		opts := &runc.CreateOpts{PidFile: l.pidFile}
		if l.socket != nil {
			opts.ConsoleSocket = l.socket
		} else {
			opts.IO = l.pipes
		}
		return r.cli(l.log).Create(ctx, id, bundle, opts)
	})
	if err != nil {
		r.discard(ctx, id)
		r.cgroups.leave(c.cgroup)
		return nil, errors.Join(fmt.Errorf("create container: %w", err), removeFile(path))
	}
	return c, nil
}

// discard removes what a failed creation may have left in the runtime.
func (r *Runtime) discard(ctx context.Context, id string) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := r.cli("").Delete(ctx, id, &runc.DeleteOpts{Force: true}); err != nil {
		r.log.Debug("nothing to discard after a failed creation", slog.String("container", id), slog.Any("err", err))
	}
}

// launch is what one start of a process passes to the runtime.
type launch struct {
	pidFile string
	log     string
	pipes   *pipes
	socket  *consoleSocket
}

// launch starts a process by run and enters it under the exec id.
func (c *Container) launch(ctx context.Context, execID string, spec *specs.Process, run func(context.Context, launch) error) (err error) {
	if err := c.processes.reserve(execID); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.processes.set(execID, nil)
		}
	}()
	base := filepath.Join(c.bundle, fmt.Sprintf("start-%d", c.runtime.serial.Add(1)))
	l := launch{pidFile: base + ".pid", log: base + ".log"}
	defer func() { c.runtime.leave(errors.Join(removeFile(l.pidFile), removeFile(l.log))) }()
	var s stdio
	if spec.Terminal {
		if l.socket, err = newConsoleSocket(); err != nil {
			return err
		}
		defer func() { c.runtime.leave(l.socket.Close()) }()
	} else {
		if l.pipes, err = newPipes(spec.User.UID, spec.User.GID, c.runtime.pipe); err != nil {
			return err
		}
		s.pipes = l.pipes
	}
	handle, exit, pid, err := c.adopt(ctx, l, run)
	if err == nil && l.socket != nil {
		s.console, err = l.socket.receive()
	}
	if err != nil {
		if handle != nil {
			_ = handle.Kill() // it runs, but nobody could talk to it
		}
		if l.pipes != nil {
			_ = l.pipes.Close()
		}
		return err
	}
	p := newProcess(handle, pid, s)
	c.supervisors.Go(func() { p.supervise(exit, time.Now) })
	c.processes.set(execID, p)
	return nil
}

// leave tells of what a start could not clean up. The start has succeeded, or has
// failed for a reason of its own.
func (r *Runtime) leave(err error) {
	if err != nil {
		r.log.Warn("files of a start are left", slog.Any("err", err))
	}
}

func (c *Container) adopt(ctx context.Context, l launch, run func(context.Context, launch) error) (handle *os.Process, exit <-chan int, pid int, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	handle, exit, err = c.runtime.reaper.Adopt(func() (int, error) {
		if err := run(ctx, l); err != nil {
			return 0, explain(err, l.log)
		}
		var err error
		pid, err = runc.ReadPidFile(l.pidFile)
		return pid, err
	})
	return handle, exit, pid, err
}

// maxLog bounds what is read of a runtime's log; its last words are short.
const maxLog = 64 << 10

// explain replaces "exit status 1" by what the runtime wrote in its log. The
// process's standard error belongs to the container, so it is not there.
func explain(err error, log string) error {
	raw, readErr := os.ReadFile(log)
	if readErr != nil {
		return err
	}
	raw = raw[max(0, len(raw)-maxLog):]
	var last string
	for line := range bytes.Lines(raw) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg != "" && entry.Level != "debug" && entry.Level != "info" && entry.Level != "warning" {
			last = entry.Msg
		}
	}
	if last == "" {
		return err
	}
	return fmt.Errorf("%s", last)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
