package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/components"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rest"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// service is one of the agent's side doors, open as long as its pod lives.
type service struct {
	listener net.Listener
	serve    func(ctx context.Context, l net.Listener) error
}

// openServices opens what the settings and the command line ask for beside the
// runtime's own door: the sockets of the components that this agent stands in
// for, and the REST API. It opens all or none.
func openServices(ctx context.Context, o Options, s settings.Agent, h *hub.Hub, log *slog.Logger) (all []service, err error) {
	defer func() {
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.listener.Close())
			}
			all = nil
		}
	}()
	for _, c := range []struct {
		needs settings.Components
		path  string
		make  func() (*ttrpc.Server, error)
	}{
		{settings.Attestation, o.AttestationSocket, func() (*ttrpc.Server, error) { return components.NewAttestation(h, log) }},
		{settings.DataHub, o.DataHubSocket, func() (*ttrpc.Server, error) { return components.NewDataHub(h, log) }},
	} {
		if s.Components < c.needs || c.path == "" {
			continue
		}
		server, err := c.make()
		if err != nil {
			return all, err
		}
		l, err := listenSocket(ctx, c.path)
		if err != nil {
			return all, err
		}
		all = append(all, service{l, untilEnd(server)})
	}
	if s.Components >= settings.REST && o.RESTListen != "" {
		l, err := net.Listen("tcp", o.RESTListen)
		if err != nil {
			return all, err
		}
		all = append(all, service{l, func(ctx context.Context, l net.Listener) error {
			return rest.Serve(ctx, l, rest.NewHandler(h, h, s.RESTFeatures), log)
		}})
	}
	return all, nil
}

// listenSocket makes a socket that root alone can connect to.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("socket %q: want an absolute path", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return address{network: "unix", path: path}.listen(ctx)
}

// untilEnd serves until ctx is done; calls under way are ended with it.
func untilEnd(server *ttrpc.Server) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		served := make(chan error, 1)
		go func() { served <- server.Serve(ctx, l) }()
		var closed error
		select {
		case err := <-served:
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		case <-ctx.Done():
			closed = server.Close()
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			return errors.Join(closed, err)
		}
		return closed
	}
}
