package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"

	"github.com/containerd/ttrpc"
	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/hypervisor"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/hypervisor/api"
)

func run(ctx context.Context, args []string) (err error) {
	var listen string
	cfg := hypervisor.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flags := pflag.NewFlagSet("hypervisor-stub", pflag.ContinueOnError)
	flags.StringVar(&listen, "listen", "/run/vouchsafe/hypervisor.sock", "socket that the shim's remote_hypervisor_socket names")
	flags.StringVar(&cfg.Agent, "agent", "guest-agent", "path of the guest agent's program")
	flags.StringVar(&cfg.Dir, "dir", "/run/vouchsafe", "directory for machines; keep it short")
	flags.StringVar(&cfg.CommandLine, "cmdline", "", "kernel command line of the machines, such as vouchsafe.insecure_no_agent_policy=true")
	flags.StringVar(&cfg.Vendor, "vendor", "", "directory of a simulated vendor (measure sim vendor), for pods with init-data")
	flags.StringVar(&cfg.Measure, "measure", "measure", "path of the program that simulates guests")
	flags.StringArrayVar(&cfg.Args, "agent-arg", nil, "one more argument for the agent, such as --runtime=crun (repeat)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	l, err := net.Listen("unix", listen)
	if err != nil {
		return err
	}
	if err := os.Chmod(listen, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	s := hypervisor.New(cfg)
	defer func() { err = errors.Join(err, s.Close()) }()
	rpc, err := ttrpc.NewServer()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	api.RegisterHypervisorService(rpc, s)
	context.AfterFunc(ctx, func() { _ = rpc.Close() })
	if err := rpc.Serve(context.WithoutCancel(ctx), l); !errors.Is(err, ttrpc.ErrServerClosed) {
		return err
	}
	return nil
}
