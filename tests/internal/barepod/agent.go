// Package barepod runs the guest agent without a broker, as a process of this
// machine, and plays the runtime's part with containers of busybox, whose root
// the host copies in. Whoever measures the agent, or tries what runtimes do,
// needs no image and no attestation for it.
package barepod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/programs"
)

// Busybox is the static program that the containers consist of.
const Busybox = "/bin/busybox"

// Missing names what this machine lacks, or is empty.
func Missing(tools ...string) string {
	if os.Getuid() != 0 {
		return "root"
	}
	for _, t := range append([]string{"mount"}, tools...) {
		if _, err := exec.LookPath(t); err != nil {
			return t
		}
	}
	if _, err := os.Stat(Busybox); err != nil {
		return "a static " + Busybox + " (Debian: busybox-static)"
	}
	return ""
}

// Build builds the agent as it is released and returns the program's path.
func Build(ctx context.Context, dir string) (string, error) {
	return filepath.Join(dir, "guest-agent"), programs.Build(ctx, dir, "guest-agent/cmd/guest-agent")
}

// Config says how an agent is run.
type Config struct {
	Program string   // of [Build]
	Runtime string   // runc, crun; empty: the agent's choice
	Listen  string   // an address for serve; empty: a unix socket in the agent's directory
	Args    []string // more arguments for serve
	Policy  string   // an agent policy; empty: none is in force, which is waived
	// SameMounts runs the agent in the caller's mount namespace, without a shell
	// in between.
	SameMounts bool
}

// Agent is one that runs.
type Agent struct {
	agent.AgentServiceService
	Health agent.HealthService

	Dir    string // of this agent; the state directory is in it
	Socket string // where it listens, if Config names nothing else
	Cold   time.Duration
	// Cgroup is the parent of the containers' cgroups.
	Cgroup string
	policy string // a file; empty without

	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan struct{}
	err    error
	client *ttrpc.Client
	end    sync.Once
	roots  sync.Mutex // while one is made
}

// withoutV2 hides the second hierarchy of a hybrid layout, which crun refuses.
const withoutV2 = `if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; `

// Start runs an agent in a mount namespace of its own and, unless it listens
// elsewhere, waits for its first answer.
func Start(ctx context.Context, cfg Config) (*Agent, error) {
	dir, err := os.MkdirTemp("", "pod-") // short: sockets lie in it
	if err != nil {
		return nil, err
	}
	a := &Agent{
		Dir: dir, Socket: filepath.Join(dir, "agent.sock"), Cgroup: "/vouchsafe-" + filepath.Base(dir),
		log: &lockedBuffer{}, exited: make(chan struct{}),
	}
	listen := cfg.Listen
	if listen == "" {
		listen = "unix://" + a.Socket
	}
	environment, err := a.settings(cfg.Policy)
	if err != nil {
		return nil, errors.Join(err, a.clear())
	}
	args := append([]string{
		cfg.Program, "serve", "--listen", listen, "--state-dir", a.State(), "--kernel-cmdline", filepath.Join(dir, "cmdline"),
		"--rest-listen", "", "--attestation-socket", "", "--data-hub-socket", "", "--tpm-device", filepath.Join(dir, "no-tpm"),
	}, cfg.Args...)
	life := context.WithoutCancel(ctx) // it ends by Stop, which lets it end well
	script := "mount --make-rprivate / && "
	if cfg.Runtime != "" {
		args = append(args, "--runtime", cfg.Runtime)
	}
	if filepath.Base(cfg.Runtime) == "crun" {
		script += withoutV2
	}
	a.cmd = exec.CommandContext(life, args[0], args[1:]...)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if !cfg.SameMounts {
		a.cmd = exec.CommandContext(life, "/bin/sh", append([]string{"-c", script + `exec "$@"`, "sh"}, args...)...)
		a.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	}
	a.cmd.Env = append(os.Environ(), environment...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.run(); err != nil {
		return nil, errors.Join(err, a.clear())
	}
	if cfg.Listen != "" {
		return a, nil
	}
	if err := a.dial(ctx); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// settings writes what the agent reads in place of init-data, and returns the
// environment that names it. A policy is taken from the root file system alone,
// which the directory for temporary files need not be on.
func (a *Agent) settings(policy string) (environment []string, err error) {
	words := "vouchsafe.insecure_no_agent_policy=true\n"
	if policy != "" {
		a.policy = "/vouchsafe-" + filepath.Base(a.Dir) + ".rego"
		if err := os.WriteFile(a.policy, []byte(policy), 0o600); err != nil {
			return nil, err
		}
		words, environment = "quiet\n", []string{"KATA_AGENT_POLICY_FILE=" + a.policy}
	}
	return environment, os.WriteFile(filepath.Join(a.Dir, "cmdline"), []byte(words), 0o600)
}

// clear removes what was written for the agent.
func (a *Agent) clear() error {
	err := os.RemoveAll(a.Dir)
	if a.policy != "" {
		err = errors.Join(err, os.Remove(a.policy))
	}
	return err
}

// Attach speaks with an agent that somebody else has started, whose socket and
// state directory are in dir as here.
func Attach(ctx context.Context, dir string) (*Agent, error) {
	a := &Agent{Dir: dir, Socket: filepath.Join(dir, "agent.sock"), Cgroup: "/vouchsafe-" + filepath.Base(dir), log: &lockedBuffer{}, exited: make(chan struct{})}
	return a, a.dial(ctx)
}

// Detach ends the connection of [Attach].
func (a *Agent) Detach() error { return a.client.Close() }

// run starts the program on a thread that lives as long as it does: the kernel
// sends the signal for the parent's death when the thread ends.
func (a *Agent) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := a.cmd.Start()
		started <- err
		if err == nil {
			a.err = a.cmd.Wait()
			close(a.exited)
		}
	}()
	return <-started
}

// dial connects as the Go runtime does: at once, again and again.
func (a *Agent) dial(ctx context.Context) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.Socket)
		if err == nil {
			a.client = ttrpc.NewClient(conn)
			a.AgentServiceService, a.Health = agent.NewAgentServiceClient(a.client), agent.NewHealthClient(a.client)
			_, err = a.Health.Check(ctx, &agent.CheckRequest{})
			a.Cold = time.Since(begin)
			return err
		}
		select {
		case <-a.exited:
			return fmt.Errorf("the agent ended: %w: %s", a.err, a.log)
		case <-ctx.Done():
			return fmt.Errorf("the agent does not listen: %w: %s", err, a.log)
		default:
			runtime.Gosched()
		}
	}
}

// PID is the agent's process, which is the shell's at first.
func (a *Agent) PID() int { return a.cmd.Process.Pid }

// State is the agent's state directory.
func (a *Agent) State() string { return filepath.Join(a.Dir, "state") }

// Log is what the agent has said.
func (a *Agent) Log() string { return a.log.String() }

// Exited is closed when the agent has ended.
func (a *Agent) Exited() <-chan struct{} { return a.exited }

// Stop asks the agent to end, if it has not, and fails if it did not end well.
func (a *Agent) Stop() (err error) {
	a.end.Do(func() {
		if a.client != nil {
			err = a.client.Close()
		}
		_ = a.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-a.exited:
		case <-time.After(60 * time.Second):
			_ = a.cmd.Process.Kill()
			<-a.exited
		}
		if a.err != nil {
			err = errors.Join(err, fmt.Errorf("the agent: %w: %s", a.err, a.log))
		}
		err = errors.Join(err, a.clear())
	})
	return err
}

// lockedBuffer keeps what a process says while others read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
