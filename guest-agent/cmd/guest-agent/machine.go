package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/boot"
)

// machine is the life of the init of a machine: it sets the machine up, serves
// until the pod ends, and switches the machine off. The last line on the console
// says how it ended; the host reads it.
func machine(ctx context.Context, io stdio) int {
	log := slog.New(slog.NewJSONHandler(io.err, nil))
	code := fault.ExitUnavailable
	m, err := boot.Start(ctx, log)
	if err != nil {
		_, _ = fmt.Fprintf(io.err, "guest-agent: %v\n", err)
	} else {
		stop := m.Keep(ctx)
		code = run(ctx, serveArguments(m), io, m)
		stop()
	}
	_, _ = fmt.Fprintf(io.err, "guest-agent: the machine ends, status %d\n", code)
	boot.End(log)
	return code
}

// serveArguments is the command line of the agent of a machine. What the image
// and the kernel command line do not say is as [serveCommand] has it.
func serveArguments(m *boot.Machine) []string {
	args := []string{"serve"}
	if m.InitData != "" {
		args = append(args, "--init-data", m.InitData)
	}
	if m.ResolvConf != "" {
		args = append(args, "--resolv-conf", m.ResolvConf)
	}
	return args
}
