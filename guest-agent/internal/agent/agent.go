// Package agent puts the guest agent together: settings, attester, broker
// client, hub, the REST API for workloads and the Kata service for the runtime.
// It decides the order of start and end and nothing else.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/container"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/kata"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/network"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/pullmeter"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// Options is what the command line of the agent says.
type Options struct {
	Listen   string // address of the Kata service; empty: what the settings say
	StateDir string
	// Files of a listener on TCP: the agent's certificate and its key, and the CA
	// of runtimes. Empty: what init-data says.
	TLSCert, TLSKey, TLSClientCA string
	Runtime                      string // OCI runtime; empty: the first of runc and crun
	ResolvConf                   string // bound over with the pod's DNS settings; empty: nothing is
	Platform                     string // attester; "auto" or empty: what is found
	TPMDevice                    string // path; empty: the usual ones
	RuntimeLog                   string // path of the log of runtime events; empty: aael.DefaultPath
	SimulatedSNP                 string // directory of a simulated device
	SimulatedTDX                 string // directory of a simulated TD
	InitData                     string // file; empty: none
	KernelCmdline                string // file
	ConfigFile                   string // of the agent itself; empty: what the command line of the kernel says
	LogListen                    string // address of the log's port; empty: what the settings say
	RESTListen                   string // address of the REST API; empty: none
	// Sockets of the components that the agent stands in for; empty: none.
	AttestationSocket, DataHubSocket string
	LogLevel                         string // empty: what the settings say
	LibraryGzip                      bool   // gzip layers by the library, not by our own decoder
	PauseBinary                      string // this program
	Version                          string
	Stderr                           io.Writer
	// Complete does to the machine what can be done while the agent serves: before
	// it has returned, nothing but questions after the agent's health is answered.
	// If it fails, the reason is the answer to everything else that the runtime asks
	// for. Nil for nothing.
	Complete func(context.Context) error
}

// Run is the agent from start to end: it returns after the sandbox was destroyed
// or ctx is done, with everything it started gone. It must be called on the main
// thread, which becomes the reaper's (see [container.Reaper]).
func Run(ctx context.Context, o Options) error {
	reaper, err := container.NewReaper()
	if err != nil {
		return err
	}
	// The reaper ends after the work, not with ctx: containers still end then.
	reaping, stop := context.WithCancel(context.WithoutCancel(ctx))
	worked := make(chan error, 1)
	go func() {
		defer stop()
		worked <- work(ctx, o, reaper)
	}()
	if err := reaper.Run(reaping); err != nil {
		return err // nothing was adopted yet: this fails at once or never
	}
	return <-worked
}

// work is everything but reaping.
func work(ctx context.Context, o Options, reaper *container.Reaper) (err error) {
	s, err := load(o)
	if err != nil {
		return err
	}
	log, closeLog, err := newLogger(ctx, o, s.Agent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }() // the last of all
	for _, w := range s.Warnings {
		log.Warn("a setting was ignored", slog.String("setting", w))
	}
	meter := pullmeter.New(log, time.Now)
	vols := newVolumes(o, s.Agent, log)
	defer func() { err = errors.Join(err, vols.close(ctx)) }() // after the hub: images may lie on one
	rest := newCompletion(o.Complete)
	if err := vols.imagePlace(ctx, o, s, rest); err != nil {
		return err
	}
	h, closeHub, err := newHub(ctx, o, s, meter.Observe, log)
	if err != nil {
		return err
	}
	vols.hub = h
	defer func() { err = errors.Join(err, closeHub()) }()
	if err := fetchCredentials(ctx, s.Credentials, settings.CredentialDir, h.Resource); err != nil {
		return err
	}
	var server *kata.Server // its containers are what leases are for
	keeper, err := newKeeper(s.Leases, h, func(ctx context.Context, id string) error { return server.Kill(ctx, id) }, log)
	if err != nil {
		return err
	}
	cfg := kataConfig(o, s, h, vols, keeper, log)
	cfg.Reaper, cfg.Leases, cfg.Metrics, cfg.Ready = reaper, keeper, meter.Text, rest.wait
	cfg.KeepImages = vols.keepImages(o, s)
	cfg.Encrypted = newPodVolumes(s, lentVolumes{vols.mounter, keeper}, vols.mounter)
	if s.Agent.Policy != "" {
		if cfg.Policy, err = policy.New(ctx, s.Agent.Policy, policy.Config{UnsafeLearn: s.Agent.InsecureLearnPolicy, Logger: log}); err != nil {
			return fmt.Errorf("%s: %w", settings.DocumentPolicy, err)
		}
	}
	defer openNetwork(&cfg, log)()
	if server, err = kata.NewServer(cfg); err != nil {
		return err
	}
	defer func() { // a start that fails leaves nothing; after an end there is nothing left
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		err = errors.Join(err, server.Destroy(bounded))
	}()
	side, err := newDoors(s, served{h, lentVolumes{vols.mounter, keeper}}, server.Containers, log)
	if err != nil {
		return err
	}
	defer keep(ctx, keeper)()
	return serve(ctx, o, s, server, side, rest, log)
}

// openNetwork gives the runtime the guest's network, or else the reason why there
// is none. It returns what gives it up.
func openNetwork(cfg *kata.Config, log *slog.Logger) func() {
	net, err := network.Open()
	if err != nil {
		log.Warn("the runtime cannot set the guest's network up", slog.Any("err", err))
		cfg.NetworkError = err
		return func() {}
	}
	cfg.Network = net
	return net.Close
}

// kataConfig is what the settings say of the runtime's door.
func kataConfig(o Options, s *settings.Settings, h *hub.Hub, vols *volumes, keeper *lease.Keeper, log *slog.Logger) kata.Config {
	return kata.Config{
		StateDir: o.StateDir, Runtime: o.Runtime,
		Images:         newImages(h, s.Agent.ImagePullTimeout, keeper),
		Secrets:        h,
		Events:         h,
		Devices:        device.New(device.Config{Timeout: s.Agent.HotplugTimeout}),
		Swap:           vols.swap,
		GuestHooks:     s.Agent.GuestHooks,
		Endpoints:      s.Agent.Endpoints,
		PipeSize:       s.Agent.PipeSize,
		UnsafeNoPolicy: s.Agent.InsecureNoPolicy,
		Refuse: func(ctx context.Context, request string, err error) error {
			return h.Refuse(ctx, hub.ObjectRequest, request, err)
		},
		PauseBinary: o.PauseBinary, ResolvConf: o.ResolvConf, Version: o.Version, Logger: log,
	}
}

// serve answers until the sandbox was destroyed or ctx is done.
func serve(ctx context.Context, o Options, s *settings.Settings, server *kata.Server, side doors, rest *completion, log *slog.Logger) error {
	listen := o.Listen
	if listen == "" {
		listen = s.Agent.ServerAddr
	}
	addr, err := parseAddress(listen)
	if err != nil {
		return err
	}
	l, err := listenFor(ctx, o, addr, s.Agent, log)
	if err != nil {
		return err
	}
	services, err := side.open(ctx, o, s)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	calls := server.RPC()
	g, groupCtx := errgroup.WithContext(ctx)
	servicesCtx, endServices := context.WithCancel(groupCtx)
	for _, s := range services {
		g.Go(func() error { return s.serve(servicesCtx, s.listener) })
	}
	g.Go(func() error {
		if err := calls.Serve(context.WithoutCancel(ctx), l); !errors.Is(err, rpc.ErrClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		if err := rest.run(groupCtx); err != nil && groupCtx.Err() == nil {
			log.Error("the machine cannot be completed: what the runtime asks for is refused", slog.Any("err", err))
		}
		return nil
	})
	g.Go(func() error {
		defer endServices()
		return end(groupCtx, server, calls)
	})
	log.Info("serving", slog.String("address", listen), slog.String("version", o.Version))
	return g.Wait()
}

// listenFor opens what the runtime connects to. TCP is never spoken in the clear.
func listenFor(ctx context.Context, o Options, addr address, s settings.Agent, log *slog.Logger) (net.Listener, error) {
	if addr.network != "tcp" {
		return addr.listen(ctx)
	}
	config, err := listenTLS(o, s.ListenTLS, log)
	if err != nil {
		return nil, err
	}
	l, err := addr.listen(ctx)
	if err != nil {
		return nil, err
	}
	return listenKnown(l, config, log), nil
}

// How long the end may take: containers are killed, answers are sent.
const (
	destroyTimeout = 30 * time.Second
	answerTimeout  = 3 * time.Second
)

// end waits for the end, brings it about in the sandbox, and lets calls that are
// under way be answered.
func end(ctx context.Context, server *kata.Server, calls *rpc.Server) error {
	var destroyed error
	select {
	case <-server.Done():
	case <-ctx.Done():
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		destroyed = server.Destroy(bounded)
	}
	return errors.Join(destroyed, stop(context.WithoutCancel(ctx), calls))
}

// stop ends the service once its calls are answered. A peer that keeps its
// connection busy, or never reads, does not keep us.
func stop(ctx context.Context, calls *rpc.Server) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if calls.Shutdown(ctx) != nil {
		return calls.Close()
	}
	return nil
}

// Places in the state directory, beside those of package sandbox.
func imageDir(o Options) string    { return filepath.Join(o.StateDir, "image") }
func journalFile(o Options) string { return filepath.Join(o.StateDir, "journal", "refusals") }
