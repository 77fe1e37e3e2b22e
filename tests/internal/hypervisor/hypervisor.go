// Package hypervisor stands in for a remote hypervisor of Kata: what it calls a
// machine is the guest agent in namespaces of its own, on the same kernel. With
// it an unmodified Kata shim runs pods against the agent where no virtual
// machine can be had. It isolates nothing from the host and must not be used for
// more than that.
package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/hypervisor/api"
)

// Config says what machines are made of.
type Config struct {
	Agent string // program
	Dir   string // machines lie in it; its path must be short, for sockets do too
	// Args are more arguments for the agent, such as --runtime.
	Args []string
	// CommandLine is what the machine's kernel command line says.
	CommandLine string
	// Vendor is a simulated vendor of processors (`measure sim vendor`), and
	// Measure the program that launches a guest on a chip of it. Without them a
	// pod with init-data is refused: nothing could bind it.
	Vendor, Measure string
	Logger          *slog.Logger
}

// Server implements hypervisor.Hypervisor.
type Server struct {
	cfg Config

	mu       sync.Mutex
	machines map[string]*machine
}

// New returns a server without machines.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, machines: map[string]*machine{}}
}

// machine is one agent, started or not.
type machine struct {
	dir, network string
	initData     string // TOML, as the shim passes it on; empty for none

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

func (m *machine) socket() string { return filepath.Join(m.dir, "agent.sock") }

// annotationInitData is where the shim puts the pod's init-data, decoded
// (kata-agent 3.4).
const annotationInitData = "io.katacontainers.config.hypervisor.cc_init_data"

var machineID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// CreateVM prepares a machine and says where its agent will listen.
func (s *Server) CreateVM(_ context.Context, req *api.CreateVMRequest) (*api.CreateVMResponse, error) {
	if !machineID.MatchString(req.Id) {
		return nil, status.Errorf(codes.InvalidArgument, "machine id %.64q", req.Id)
	}
	m := &machine{
		dir: filepath.Join(s.cfg.Dir, req.Id[:min(len(req.Id), 16)]), network: req.NetworkNamespacePath,
		initData: req.Annotations[annotationInitData],
	}
	if m.initData != "" && (s.cfg.Vendor == "" || s.cfg.Measure == "") {
		return nil, status.Error(codes.FailedPrecondition, "init-data needs a simulated vendor: nothing could bind it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machines[req.Id] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "machine %s exists", req.Id)
	}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return nil, err
	}
	s.machines[req.Id] = m
	s.cfg.Logger.Info("created", slog.String("machine", req.Id), slog.String("socket", m.socket()))
	return &api.CreateVMResponse{AgentSocketPath: m.socket()}, nil
}

func (s *Server) machine(id string) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machines[id]; m != nil {
		return m, nil
	}
	return nil, status.Errorf(codes.NotFound, "machine %.64q does not exist", id)
}

// StartVM starts the agent and returns when it listens.
func (s *Server) StartVM(ctx context.Context, req *api.StartVMRequest) (*api.StartVMResponse, error) {
	m, err := s.machine(req.Id)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "machine %s was started before", req.Id)
	}
	args, err := s.arguments(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := m.start(ctx, args); err != nil {
		return nil, err
	}
	s.cfg.Logger.Info("started", slog.String("machine", req.Id), slog.Int("pid", m.cmd.Process.Pid))
	return &api.StartVMResponse{}, nil
}

// arguments are the agent's, in namespaces of its own and the pod's network.
func (s *Server) arguments(ctx context.Context, m *machine) ([]string, error) {
	file := func(name string) string { return filepath.Join(m.dir, name) }
	if err := os.WriteFile(file("cmdline"), []byte(s.cfg.CommandLine), 0o600); err != nil {
		return nil, err
	}
	args := []string{s.cfg.Agent, "serve", "--listen", "unix://" + m.socket(), "--state-dir", file("state"), "--kernel-cmdline", file("cmdline"),
		"--attestation-socket", file("aa.sock"), "--data-hub-socket", file("cdh.sock")}
	if m.initData != "" {
		if err := os.WriteFile(file("initdata.toml"), []byte(m.initData), 0o600); err != nil {
			return nil, err
		}
		launch := exec.CommandContext(ctx, s.cfg.Measure, "sim", "guest", "--vendor", s.cfg.Vendor, "--out", file("device"),
			"--image", s.cfg.Agent, "--cmdline", s.cfg.CommandLine, "--init-data", file("initdata.toml"))
		if out, err := launch.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("launch a simulated guest: %w: %s", err, bytes.TrimSpace(out))
		}
		args = append(args, "--init-data", file("initdata.toml"), "--simulated-snp", file("device"))
	}
	args = append(args, s.cfg.Args...)
	if m.network != "" {
		args = append([]string{"nsenter", "--net=" + m.network, "--"}, args...)
	}
	return append([]string{"/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$@"`, "sh"}, args...), nil
}

// startTimeout bounds the wait for an agent to listen; a shim waits 30 seconds.
const startTimeout = 30 * time.Second

func (m *machine) start(ctx context.Context, args []string) error {
	log, err := os.OpenFile(filepath.Join(m.dir, "agent.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, // no machine outlives its hypervisor
	}
	started, exited := make(chan error), make(chan struct{})
	go func() { // the thread must live as long as the machine: see Pdeathsig
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	m.cmd, m.exited = cmd, exited
	return m.listens(ctx)
}

func (m *machine) listens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.socket())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-m.exited:
			log, _ := os.ReadFile(filepath.Join(m.dir, "agent.log"))
			return fmt.Errorf("the agent ended: %s", log[max(0, len(log)-4096):])
		case <-ctx.Done():
			return fmt.Errorf("the agent does not listen: %w", err)
		}
	}
}

// StopVM ends a machine and forgets it. One that is not there is no error: a
// shim also asks when the pod's end has ended the agent.
func (s *Server) StopVM(_ context.Context, req *api.StopVMRequest) (*api.StopVMResponse, error) {
	s.mu.Lock()
	m := s.machines[req.Id]
	delete(s.machines, req.Id)
	s.mu.Unlock()
	if m == nil {
		return &api.StopVMResponse{}, nil
	}
	s.cfg.Logger.Info("stopped", slog.String("machine", req.Id))
	return &api.StopVMResponse{}, m.stop()
}

func (m *machine) stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-m.exited:
		case <-time.After(startTimeout):
			_ = m.cmd.Process.Kill()
			<-m.exited
		}
	}
	return os.RemoveAll(m.dir)
}

// Version answers with the version that was asked for: there is one.
func (s *Server) Version(_ context.Context, req *api.VersionRequest) (*api.VersionResponse, error) {
	return &api.VersionResponse{Version: req.Version}, nil
}

// Close ends every machine.
func (s *Server) Close() error {
	s.mu.Lock()
	all := s.machines
	s.machines = map[string]*machine{}
	s.mu.Unlock()
	var errs []error
	for _, m := range all {
		errs = append(errs, m.stop())
	}
	return errors.Join(errs...)
}
