package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/logport"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// newLogger logs JSON, to the console or, where a runtime wants it there, to a
// port of its own. closeLog must be called once all else has ended: it sends the
// last lines.
func newLogger(ctx context.Context, o Options, s settings.Agent) (log *slog.Logger, closeLog func() error, err error) {
	level := s.LogLevel
	if o.LogLevel != "" {
		if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
			return nil, nil, fmt.Errorf("log level: %w", err)
		}
	}
	at, wanted, err := logAddress(o, s)
	if err != nil {
		return nil, nil, err
	}
	if !wanted {
		return slog.New(slog.NewJSONHandler(o.Stderr, &slog.HandlerOptions{Level: level})), func() error { return nil }, nil
	}
	l, err := at.listen(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the log's port: %w", err)
	}
	queue := logport.NewQueue()
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // longer than what is logged
	served := make(chan error, 1)
	go func() { served <- queue.Serve(serving, l) }()
	return slog.New(logport.NewHandler(queue, level, o.Version)), func() error { stop(); return <-served }, nil
}

// logAddress is where the log is to be had; wanted is false for the console. The
// port of the settings is for the host's side of vsock, as of the field's agent.
func logAddress(o Options, s settings.Agent) (at address, wanted bool, err error) {
	switch {
	case o.LogListen != "":
		if at, err = parseAddress(o.LogListen); err == nil && at.network == "tcp" {
			err = errors.New("the log is not to be had over TCP")
		}
		return at, true, err
	case s.LogPort != 0:
		return address{network: "vsock", cid: unix.VMADDR_CID_ANY, port: s.LogPort}, true, nil
	}
	return at, false, nil
}
