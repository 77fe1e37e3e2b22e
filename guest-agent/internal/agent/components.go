package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/access"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/components"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rest"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// service is one of the agent's side doors, open as long as its pod lives.
type service struct {
	listener net.Listener
	serve    func(ctx context.Context, l net.Listener) error
}

// doors opens the side doors: what is served, to whom.
type doors struct {
	guard  *access.Guard
	finder *caller.Finder
	crowd  *caller.Crowd
	log    *slog.Logger
}

func newDoors(s *settings.Settings, h access.Hub, containers func() []caller.Container, log *slog.Logger) (doors, error) {
	var rules []access.Rule
	for _, r := range s.Access {
		rules = append(rules, access.Rule(r))
	}
	if err := access.Validate(rules); err != nil {
		return doors{}, fmt.Errorf("%s: vouchsafe.%w", settings.DocumentCDH, err)
	}
	finder := &caller.Finder{Containers: containers}
	return doors{access.New(h, rules), finder, &caller.Crowd{Finder: finder, Now: time.Now}, log}, nil
}

// open opens what the settings and the command line ask for beside the
// runtime's own door: the services of the components that this agent stands in
// for, and the REST API. It opens all or none.
func (d doors) open(ctx context.Context, o Options, s *settings.Settings) (all []service, err error) {
	defer func() {
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.listener.Close())
			}
			all = nil
		}
	}()
	for _, c := range []struct {
		needs       settings.Components
		flag, asked string
		ttrpc       func() *rpc.Server
		grpc        func() *grpc.Server
	}{
		{settings.Attestation, o.AttestationSocket, s.AttestationSocket,
			func() *rpc.Server { return components.NewAttestation(d.guard, d.log) },
			func() *grpc.Server { return components.NewAttestationGRPC(d.guard, d.tag, d.log) }},
		{settings.DataHub, o.DataHubSocket, s.DataHubSocket,
			func() *rpc.Server { return components.NewDataHub(d.guard, d.log) },
			func() *grpc.Server { return components.NewDataHubGRPC(d.guard, d.tag, d.log) }},
	} {
		if s.Agent.Components < c.needs {
			continue
		}
		socket := c.flag
		if path, ok := strings.CutPrefix(c.asked, "unix://"); ok {
			socket = path
		} else if c.asked != "" {
			l, err := net.Listen("tcp", c.asked)
			if err != nil {
				return all, err
			}
			all = append(all, service{d.share(l, maxConns), untilStopped(c.grpc())})
		}
		if socket == "" {
			continue
		}
		l, err := listenSocket(ctx, socket)
		if err != nil {
			return all, err
		}
		all = append(all, service{d.share(l, maxConns), d.untilClosed(c.ttrpc())})
	}
	if s.Agent.Components >= settings.REST && o.RESTListen != "" {
		l, err := net.Listen("tcp", o.RESTListen)
		if err != nil {
			return all, err
		}
		all = append(all, service{d.share(l, rest.MaxRequests), func(ctx context.Context, l net.Listener) error {
			return rest.Serve(ctx, l, d.known(rest.NewHandler(d.guard, d.guard, s.Agent.RESTFeatures)), d.log)
		}})
	}
	return all, nil
}

// known gives each request the context of its connection.
func (d doors) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		remote, _ := netip.ParseAddrPort(r.RemoteAddr)
		next.ServeHTTP(w, r.WithContext(d.throughTCP(r.Context(), local, remote)))
	})
}

// tag gives the calls of a gRPC connection its context.
func (d doors) tag(ctx context.Context, i *stats.ConnTagInfo) context.Context {
	remote, _ := netip.ParseAddrPort(i.RemoteAddr.String())
	return d.throughTCP(ctx, i.LocalAddr, remote)
}

func (d doors) throughTCP(ctx context.Context, local net.Addr, remote netip.AddrPort) context.Context {
	return caller.Through(ctx, false, func() (caller.Caller, error) {
		a, ok := local.(*net.TCPAddr)
		if !ok {
			return caller.Caller{}, errors.New("not a TCP connection")
		}
		return d.finder.TCP(a.AddrPort(), remote)
	})
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
