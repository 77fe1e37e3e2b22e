package components

import (
	"context"
	"log/slog"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// Where the field's gRPC builds listen (guest-protocol 1).
const (
	AttestationAddress = "127.0.0.1:50002"
	DataHubAddress     = "127.0.0.1:50000"
)

// The services are generated for ttrpc alone, as the names of gRPC's generator
// clash with those of ttrpc's. Their messages and methods are the same, so that
// a table of the methods is all that gRPC needs.

// NewAttestationGRPC returns the service of the attestation-agent in its gRPC
// form. tag makes the context of a connection's calls.
func NewAttestationGRPC(h Attester, tag func(context.Context, *stats.ConnTagInfo) context.Context, log *slog.Logger) *grpc.Server {
	s := newGRPC("[ERROR:attestation-agent]", tag, log)
	a := attestationAgent{h}
	const name = "attestation_agent.AttestationAgentService"
	register(s, name,
		method(name, "GetEvidence", a.GetEvidence),
		method(name, "GetAdditionalEvidence", a.GetAdditionalEvidence),
		method(name, "GetToken", a.GetToken),
		method(name, "ExtendRuntimeMeasurement", a.ExtendRuntimeMeasurement),
		method(name, "BindInitData", a.BindInitData),
		method(name, "GetTeeType", a.GetTeeType),
		method(name, "GetAdditionalTees", a.GetAdditionalTees))
	return s
}

// NewDataHubGRPC returns the services of the confidential-data-hub in their
// gRPC form.
func NewDataHubGRPC(h DataHub, tag func(context.Context, *stats.ConnTagInfo) context.Context, log *slog.Logger) *grpc.Server {
	s := newGRPC("[CDH] [ERROR]:", tag, log)
	d := newDataHub(h)
	for _, m := range []struct {
		service string
		desc    func(service string) grpc.MethodDesc
	}{
		{"api.SealedSecretService", func(n string) grpc.MethodDesc { return method(n, "UnsealSecret", d.UnsealSecret) }},
		{"api.GetResourceService", func(n string) grpc.MethodDesc { return method(n, "GetResource", d.GetResource) }},
		{"api.SecureMountService", func(n string) grpc.MethodDesc { return method(n, "SecureMount", d.SecureMount) }},
		{"api.ImagePullService", func(n string) grpc.MethodDesc { return method(n, "PullImage", d.PullImage) }},
	} {
		register(s, m.service, m.desc(m.service))
	}
	const keys = "keyprovider.KeyProviderService"
	register(s, keys, method(keys, "WrapKey", d.WrapKey), method(keys, "UnWrapKey", d.UnWrapKey))
	return s
}

// Limits of one connection.
const (
	maxStreams       = 64
	handshakeTimeout = 10 * time.Second
	maxMessage       = 4 << 20 // bytes, as of ttrpc (guest-protocol 2.1)
)

func newGRPC(prefix string, tag func(context.Context, *stats.ConnTagInfo) context.Context, log *slog.Logger) *grpc.Server {
	return grpc.NewServer(
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(handshakeTimeout), grpc.MaxRecvMsgSize(maxMessage),
		grpc.StatsHandler(tagger{tag}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			resp, err := protect(log, prefix, path.Base(info.FullMethod), func() (any, error) { return handler(ctx, req) })
			if err != nil { // the gRPC builds name no KBC (guest-protocol 2.1)
				s := status.Convert(err)
				err = status.Error(s.Code(), strings.Replace(s.Message(), "AA-KBC ", "AA ", 1))
			}
			return resp, err
		}),
	)
}

// tagger makes the contexts of connections.
type tagger struct {
	conn func(context.Context, *stats.ConnTagInfo) context.Context
}

func (t tagger) TagConn(ctx context.Context, i *stats.ConnTagInfo) context.Context {
	return t.conn(ctx, i)
}
func (tagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (tagger) HandleConn(context.Context, stats.ConnStats)                     {}
func (tagger) HandleRPC(context.Context, stats.RPCStats)                       {}

func register(s *grpc.Server, service string, methods ...grpc.MethodDesc) {
	s.RegisterService(&grpc.ServiceDesc{ServiceName: service, Methods: methods}, nil)
}

// method is one method of a service, for gRPC.
func method[Req, Resp any](service, name string, call func(context.Context, *Req) (*Resp, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := new(Req)
		if err := decode(req); err != nil {
			return nil, err
		}
		info := &grpc.UnaryServerInfo{FullMethod: "/" + service + "/" + name}
		return interceptor(ctx, req, info, func(ctx context.Context, _ any) (any, error) { return call(ctx, req) })
	}}
}
