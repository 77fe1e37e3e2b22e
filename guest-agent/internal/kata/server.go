// Package kata serves the Kata agent protocol: what a container runtime on the
// host asks of the guest. It translates between the protocol and the packages
// container and sandbox, and decides what the host is told when something
// fails. The host is not trusted: it may ask for anything, in any order.
//
// A [Policy] of the pod's owner judges every request before any of it is carried
// out. Without one nothing runs, unless init-data or the measured command line
// waives it by name ([Config.UnsafeNoPolicy]). Then the host's word counts for
// what a container runs and reaches (arguments, environment, user, capabilities,
// devices, exec, where its own directories are mounted, also over files of the
// image), and for a root that it copies in itself. Only a pulled image is tied
// to its owner, by the image policy. Storages, sources of mounts, copied files
// and root paths are confined all the same.
package kata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/container"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/iptables"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/machine"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/oom"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// Config says what a server works with.
type Config struct {
	// StateDir holds everything of the pod, [sandbox.GuestDir] in a guest. It is
	// made if absent.
	StateDir string
	// Runtime is the OCI runtime program; empty means the first of runc and crun.
	Runtime string
	// Reaper must be running as long as the server is used.
	Reaper *container.Reaper
	// Images pulls images; nil refuses containers that need one.
	Images sandbox.Images
	// Network is the guest's; nil refuses its methods, for the reason NetworkError,
	// which the owner is told.
	Network      Network
	NetworkError error
	// Endpoints are the requests that are answered at all, such as
	// "CreateContainerRequest"; nil for all of them. They are no policy: what is
	// among them is judged as ever.
	Endpoints []string
	// PipeSize is how many bytes of a container's output may wait; 0 for the
	// usual ([container.Config]).
	PipeSize int
	// Machine is the guest's kernel; nil for the one that runs this.
	Machine Machine
	// Tables are its packet filter; nil for that of the guest's image.
	Tables Tables
	// Devices finds disks that the host plugs in; nil refuses what needs one.
	Devices Devices
	// KeepImages keeps images on a disk from now on, encrypted; nil refuses.
	KeepImages func(ctx context.Context, b device.Block) error
	// GuestHooks is the directory of programs that a host may have run around
	// containers; empty refuses.
	GuestHooks string
	// Swap takes disks to swap to; nil refuses them.
	Swap Swap
	// Encrypted encrypts such disks; nil refuses those that must be.
	Encrypted sandbox.Encrypted
	// Events records what is started; nil records nothing.
	Events Events
	// Secrets opens sealed secrets; nil refuses containers that have some.
	Secrets Secrets
	// Leases keeps what containers have from brokers; nil keeps nothing.
	Leases Leases
	// PauseBinary is the static program for the pause container: the agent's own.
	PauseBinary string
	// ResolvConf is bound over with the pod's DNS settings; empty leaves the
	// system's alone.
	ResolvConf string
	// Policy judges requests; nil for none.
	Policy Policy
	// Refuse gives a refusal of the policy its ticket, and tells the owner of the
	// cause. Nil draws a ticket and tells nobody.
	Refuse func(ctx context.Context, request string, err error) error
	// UnsafeNoPolicy serves requests that decide what runs although no policy
	// judges them. Without it, and without a policy, they are refused.
	UnsafeNoPolicy bool
	// Ready is waited for before the host is asked what it wants: until then only
	// questions after the agent's health are answered. Its error is the answer to all
	// else, but for the end of the sandbox. Nil waits for nothing.
	Ready func(ctx context.Context) error
	// Metrics returns what the agent counts, in the Prometheus text format; nil:
	// GetMetrics is not implemented.
	Metrics func() string
	// KernelParameters is where the kernel's parameters lie; empty means /proc/sys.
	KernelParameters string
	// Version is the agent's version, which the host may show.
	Version string
	Logger  *slog.Logger // nil discards
}

// Server implements grpc.AgentService and grpc.Health for one sandbox.
type Server struct {
	sandbox    *sandbox.Sandbox
	runtime    *container.Runtime
	secrets    Secrets
	leases     Leases // nil without
	events     Events
	network    Network
	offline    error // why there is no network
	machine    Machine
	tables     Tables
	devices    Devices
	trusted    trustedStore
	swap       Swap
	hooks      string
	oom        oom.Queue
	version    string
	parameters parameters    // of the pod's network
	metrics    func() string // nil without
	ready      func(ctx context.Context) error
	awake      atomic.Bool // ready has returned once
	policy     Policy      // nil without
	trust      bool        // UnsafeNoPolicy
	endpoints  endpoints
	refuse     func(ctx context.Context, request string, err error) error
	seccomp    func() bool // asks the runtime once
	log        *slog.Logger

	destroying chan struct{} // closed when DestroySandbox begins: creations give up
	done       chan struct{} // closed when the sandbox is gone

	mu         sync.Mutex
	state      lifecycle
	sharePID   bool
	hostname   bool
	run        *specs.Hooks // of the guest's image; nil for none
	containers map[string]*record
	patience   time.Duration  // with creations at the end
	creations  sync.WaitGroup // added to under mu, and not once state is destroyed
}

type lifecycle int

const (
	absentSandbox lifecycle = iota
	creatingSandbox
	liveSandbox
	destroyedSandbox
)

// NewServer prepares the state directory and finds the OCI runtime.
func NewServer(cfg Config) (*Server, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.StateDir == "" {
		return nil, errors.New("the agent needs a state directory")
	}
	allowed, err := newEndpoints(cfg.Endpoints)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o711); err != nil {
		return nil, err
	}
	s := &Server{
		endpoints: allowed, offline: cfg.NetworkError, ready: cfg.Ready,
		version: cfg.Version, secrets: cfg.Secrets, leases: cfg.Leases, events: cfg.Events, network: cfg.Network, metrics: cfg.Metrics,
		policy: cfg.Policy, trust: cfg.UnsafeNoPolicy, refuse: cfg.Refuse, log: log,
		destroying: make(chan struct{}),
		done:       make(chan struct{}),
		containers: map[string]*record{},
		patience:   creationPatience,
	}
	s.parameters = parameters{root: cmp.Or(cfg.KernelParameters, "/proc/sys"), writes: map[string]int{}}
	if s.machine = cfg.Machine; s.machine == nil {
		s.machine = &machine.Machine{}
	}
	if s.tables = cfg.Tables; s.tables == nil {
		s.tables = iptables.Tables{}
	}
	s.devices, s.swap, s.trusted.keep = cfg.Devices, cfg.Swap, cfg.KeepImages
	s.hooks = cfg.GuestHooks
	if s.refuse == nil {
		s.refuse = untold
	}
	if s.ready == nil {
		s.ready = func(context.Context) error { return nil }
	}
	images := cfg.Images
	if images != nil && s.policy != nil {
		images = allowedImages{images, s}
	}
	var disks sandbox.Devices // nil where there is no finder
	if cfg.Devices != nil {
		disks = cfg.Devices
	}
	s.sandbox, err = sandbox.New(sandbox.Config{
		Dir: cfg.StateDir, Images: images, Devices: disks, Encrypted: cfg.Encrypted, PauseBinary: cfg.PauseBinary, ResolvConf: cfg.ResolvConf, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	s.runtime, err = container.New(container.Config{Command: cfg.Runtime, Root: s.sandbox.RuntimeDir(), Reaper: cfg.Reaper, PipeSize: cfg.PipeSize, Logger: log})
	if err != nil {
		return nil, errors.Join(err, s.sandbox.Close(context.Background()))
	}
	s.seccomp = sync.OnceValue(func() bool { return s.runtime.SupportsSeccomp(context.Background()) })
	return s, nil
}

// untold is the refusal of a server that has nobody to tell.
func untold(_ context.Context, _ string, err error) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.With(fault.NewTicket())
	}
	return err
}

// Done is closed when the sandbox has been destroyed: the agent's work is over.
func (s *Server) Done() <-chan struct{} { return s.done }

// serving is a call of either service; [rpc.Call] says what its methods do.
type serving interface {
	Method() string
	Request() proto.Message
	Wait()
	Do(ctx context.Context) error
}

// intercept is around every call.
func (s *Server) intercept(ctx context.Context, c *rpc.Call) error { return s.around(ctx, c) }

// around lets the policy judge the request, so that nothing of it is carried out
// before, keeps a bug in one call from ending the agent, and turns errors into what
// the host may see. It logs no request: arguments and environment of a process may
// be secret.
func (s *Server) around(ctx context.Context, call serving) (err error) {
	start := time.Now()
	name := path.Base(call.Method())
	c := &hearing{s: s, call: call, done: func(bool) {}}
	c.ctx = context.WithValue(ctx, hearingKey{}, c)
	defer func() {
		if p := recover(); p != nil {
			c.done(false)
			s.log.Error("a call panicked", slog.String("method", name), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = panicError()
			return
		}
		c.done(err == nil)
		if err != nil {
			err = wireError(err)
			s.log.Warn("call refused", slog.String("method", name), slog.Duration("took", time.Since(start)),
				slog.String("code", status.Code(err).String()), slog.Any("err", err))
			return
		}
		s.log.Debug("call answered", slog.String("method", name), slog.Duration("took", time.Since(start)))
	}()
	if policed(call.Method()) {
		if err := s.awaken(ctx, call); err != nil {
			return err
		}
		if err := s.endpoints.check(call.Request()); err != nil {
			return err
		}
		if err := c.judge(call.Request()); err != nil {
			return err
		}
	}
	return call.Do(c.ctx)
}

// awaken waits until the machine is set up.
func (s *Server) awaken(ctx context.Context, call serving) error {
	if s.awake.Load() {
		return nil
	}
	call.Wait()
	if err := s.ready(ctx); err != nil {
		if _, end := call.Request().(*agent.DestroySandboxRequest); end && ctx.Err() == nil {
			return nil // a machine that cannot be set up can be ended
		}
		return fmt.Errorf("the machine is not set up: %w", err)
	}
	s.awake.Store(true)
	return nil
}

// health implements grpc.Health.
type health struct{ s *Server }

// apiVersion is the protocol's version (kata-agent 1.2).
const apiVersion = "0.0.1"

// Check answers that the agent serves, for it does.
func (health) Check(context.Context, *agent.CheckRequest) (*agent.HealthCheckResponse, error) {
	return &agent.HealthCheckResponse{Status: agent.HealthCheckResponse_SERVING}, nil
}

// Version tells the versions of the protocol and of the agent.
func (h health) Version(context.Context, *agent.CheckRequest) (*agent.VersionCheckResponse, error) {
	return &agent.VersionCheckResponse{GrpcVersion: apiVersion, AgentVersion: h.s.version}, nil
}

// untilDone returns a context that also ends when done is closed. The returned
// function waits for the goroutine behind it.
func untilDone(ctx context.Context, done <-chan struct{}) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-done:
			cancel(errDestroyed)
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// errDestroyed has words that end the runtime's loop for OOM events
// (kata-agent 1.5).
var errDestroyed = refusef(codes.Unavailable, "Dead agent: the sandbox is being destroyed")
