// Package external lets programs of others answer for the broker: the plugin
// "external", whose back ends speak gRPC (kbs-protocol 8.2).
//
// A back end is trusted with what guests send to it, and with nothing else: it
// cannot make the broker release a resource, it never sees a key, and one that
// is slow, large or gone costs its own callers only.
package external

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
)

// Name of the plugin.
const Name = "external"

// Backend says where a back end is.
type Backend struct {
	Name     string
	Endpoint string         // https://HOST:PORT, or http for one that is on this machine
	RootCAs  *x509.CertPool // nil means the system's
	Client   []tls.Certificate
	Timeout  time.Duration // of one call; 0 is DefaultTimeout
}

// DefaultTimeout is that of a call.
const DefaultTimeout = 10 * time.Second

// The pauses between attempts to connect, as the field's brokers make them.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// calls bounds the calls that one back end has at a time, so that a slow one
// does not hold every connection of the broker.
const calls = 64

// Plugin joins the back ends under their names.
type Plugin struct{ backends map[string]*backend }

var _ plugin.Plugin = (*Plugin)(nil)

type backend struct {
	conn    *grpc.ClientConn
	client  pb.KbsPluginClient
	timeout time.Duration
	busy    chan struct{}
}

// New prepares the back ends and connects to nobody yet.
func New(all []Backend) (*Plugin, error) {
	p := &Plugin{backends: map[string]*backend{}}
	for _, b := range all {
		u, err := url.Parse(b.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, errors.Join(fmt.Errorf("plugin %s: the endpoint of %s is not https://HOST:PORT", Name, b.Name), p.Close())
		}
		creds := insecure.NewCredentials()
		if u.Scheme == "https" {
			creds = credentials.NewTLS(&tls.Config{RootCAs: b.RootCAs, Certificates: b.Client, MinVersion: tls.VersionTLS12})
		}
		conn, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(creds),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(plugin.MaxAnswer+1<<10)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: lastPause},
				MinConnectTimeout: lastPause,
			}))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("plugin %s: %s: %w", Name, b.Name, err), p.Close())
		}
		if b.Timeout == 0 {
			b.Timeout = DefaultTimeout
		}
		p.backends[b.Name] = &backend{conn, pb.NewKbsPluginClient(conn), b.Timeout, make(chan struct{}, calls)}
	}
	return p, nil
}

// Connect waits until every back end can be reached, or ctx ends: a name that
// was mistyped is noticed at the start and not by the first guest.
func (p *Plugin) Connect(ctx context.Context) error {
	for name, b := range p.backends {
		b.conn.Connect()
		for state := b.conn.GetState(); state != connectivity.Ready; state = b.conn.GetState() {
			if !b.conn.WaitForStateChange(ctx, state) {
				return fmt.Errorf("plugin %s: %s cannot be reached: %w", Name, name, ctx.Err())
			}
			b.conn.Connect()
		}
	}
	return nil
}

// Close ends the connections.
func (p *Plugin) Close() error {
	var all []error
	for _, b := range p.backends {
		all = append(all, b.conn.Close())
	}
	return errors.Join(all...)
}

// NeedsAdmin implements plugin.Plugin.
func (p *Plugin) NeedsAdmin(ctx context.Context, c plugin.Call) (needs bool, err error) {
	err = p.call(ctx, c, func(ctx context.Context, b *backend, r *pb.PluginRequest) error {
		out, err := b.client.ValidateAuth(ctx, r)
		needs = out.GetRequiresAdminAuth()
		return err
	})
	return needs, err
}

// Encrypts implements plugin.Plugin.
func (p *Plugin) Encrypts(ctx context.Context, c plugin.Call) (does bool, err error) {
	err = p.call(ctx, c, func(ctx context.Context, b *backend, r *pb.PluginRequest) error {
		out, err := b.client.NeedsEncryption(ctx, r)
		does = out.GetRequiresPayloadEncryption()
		return err
	})
	return does, err
}

// Handle implements plugin.Plugin.
func (p *Plugin) Handle(ctx context.Context, c plugin.Call) (out plugin.Answer, err error) {
	err = p.call(ctx, c, func(ctx context.Context, b *backend, r *pb.PluginRequest) error {
		answer, err := b.client.Handle(ctx, r)
		if err != nil {
			return err
		}
		if code := answer.GetStatusCode(); code != 0 && code/100 != 2 {
			return refused(int(code))
		}
		if len(answer.GetBody()) > plugin.MaxAnswer {
			return fault.Newf(fault.Unavailable, "the answer has %d bytes, at most %d are taken", len(answer.GetBody()), plugin.MaxAnswer)
		}
		out.Body = answer.GetBody()
		return nil
	})
	return out, err
}

// refused is a back end's own no. Its words stay with it: nobody knows whom
// they are meant for.
func refused(code int) error {
	return fault.Newf(fault.OfStatus(code), "the back end refused with status %d", code)
}

// call finds the back end, waits for a place, and asks.
func (p *Plugin) call(ctx context.Context, c plugin.Call, ask func(context.Context, *backend, *pb.PluginRequest) error) error {
	if len(c.Path) == 0 {
		return fault.Newf(fault.NotFound, "no back end is named")
	}
	b, ok := p.backends[c.Path[0]]
	if !ok {
		return fault.Newf(fault.NotFound, "there is no back end %.64q", c.Path[0])
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	select {
	case b.busy <- struct{}{}:
		defer func() { <-b.busy }()
	case <-ctx.Done():
		return fault.Newf(fault.Unavailable, "back end %s has %d calls already: %w", c.Path[0], calls, ctx.Err())
	}
	err := ask(ctx, b, &pb.PluginRequest{
		Body: c.Body, Query: c.Query, Path: slices.Clone(c.Path[1:]), Method: c.Method, AttestationClaims: c.Claims, Tenant: c.Tenant,
	})
	if s, ok := status.FromError(err); ok && err != nil {
		return fault.Newf(codeOf(s.Code()), "back end %s: %w", c.Path[0], err)
	}
	return err
}

// codeOf is what a failed call means for who asked.
func codeOf(c codes.Code) fault.Code {
	switch c {
	case codes.NotFound:
		return fault.NotFound
	case codes.InvalidArgument:
		return fault.InvalidRequest
	case codes.PermissionDenied:
		return fault.PolicyDenied
	default:
		return fault.Unavailable
	}
}
