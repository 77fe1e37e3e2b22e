// Package components serves what the field's attestation-agent and
// confidential-data-hub serve, over ttrpc on sockets of their own, for the other
// programs of a guest that expect these two: a data hub of another project on
// our attestation agent, tools that decrypt images, sidecars outside of
// containers.
//
// The sockets belong to root alone. Where the configuration asks for it, the
// services are had over gRPC on loopback too, as from the field's gRPC builds;
// there every process of the pod can connect. Who may have what is decided by
// package access, which the hub that is served stands behind.
//
// Every failure is the status Internal with upstream's text (guest-protocol
// 2.1), followed by the code and the ticket of the refusal.
package components

import (
	"context"
	"log/slog"
	"path"
	"runtime/debug"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
)

// Where the field's programs look (guest-protocol 1).
const (
	AttestationSocket = "/run/confidential-containers/attestation-agent/attestation-agent.sock"
	DataHubSocket     = "/run/confidential-containers/cdh.sock"
)

// NewAttestation returns the service of the attestation-agent.
func NewAttestation(h Attester, log *slog.Logger) *rpc.Server {
	a := attestationAgent{h}
	return rpc.NewServer(rpc.Config{Intercept: guard(log, "[ERROR:attestation-agent]"), Logger: log},
		rpc.Service{Name: "attestation_agent.AttestationAgentService", Methods: []rpc.Method{
			rpc.Unary("GetEvidence", a.GetEvidence),
			rpc.Unary("GetAdditionalEvidence", a.GetAdditionalEvidence),
			rpc.Unary("GetToken", a.GetToken),
			rpc.Unary("ExtendRuntimeMeasurement", a.ExtendRuntimeMeasurement),
			rpc.Unary("BindInitData", a.BindInitData),
			rpc.Unary("GetTeeType", a.GetTeeType),
			rpc.Unary("GetAdditionalTees", a.GetAdditionalTees),
		}},
	)
}

// NewDataHub returns the services of the confidential-data-hub.
func NewDataHub(h DataHub, log *slog.Logger) *rpc.Server {
	d := newDataHub(h)
	return rpc.NewServer(rpc.Config{Intercept: guard(log, "[CDH] [ERROR]:"), Logger: log},
		rpc.Service{Name: "api.SealedSecretService", Methods: []rpc.Method{rpc.Unary("UnsealSecret", d.UnsealSecret)}},
		rpc.Service{Name: "api.GetResourceService", Methods: []rpc.Method{rpc.Unary("GetResource", d.GetResource)}},
		rpc.Service{Name: "api.SecureMountService", Methods: []rpc.Method{rpc.Unary("SecureMount", d.SecureMount)}},
		rpc.Service{Name: "api.ImagePullService", Methods: []rpc.Method{rpc.Unary("PullImage", d.PullImage)}},
		rpc.Service{Name: "keyprovider.KeyProviderService", Methods: []rpc.Method{
			rpc.Unary("WrapKey", d.WrapKey),
			rpc.Unary("UnWrapKey", d.UnWrapKey),
		}},
	)
}

// guard is [protect] for ttrpc.
func guard(log *slog.Logger, prefix string) rpc.Interceptor {
	return func(ctx context.Context, c *rpc.Call) error {
		_, err := protect(log, prefix, path.Base(c.Method()), func() (any, error) { return nil, c.Do(ctx) })
		return err
	}
}

// protect keeps a bug in one call from ending the agent, and turns errors into
// what the caller may see.
func protect(log *slog.Logger, prefix, name string, call func() (any, error)) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a call panicked", slog.String("method", name), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			resp, err = nil, status.Error(codes.Internal, prefix+" "+name+" failed")
		}
	}()
	resp, err = call()
	if err == nil {
		return resp, nil
	}
	if _, said := status.FromError(err); said {
		return nil, err // not served, or not a message
	}
	log.Warn("call refused", slog.String("method", name), slog.Any("err", err))
	return nil, status.Error(codes.Internal, prefix+" "+text(name)+": "+public(err))
}

// public is what a caller may see of an error.
func public(err error) string { return fault.New(fault.Internal, err).Public() }

// texts are those of upstream's errors (guest-protocol 2.1).
var texts = map[string]string{
	"GetEvidence":              "AA-KBC get evidence failed",
	"GetAdditionalEvidence":    "AA-KBC get evidence failed",
	"GetToken":                 "AA-KBC get token failed",
	"ExtendRuntimeMeasurement": "AA extend runtime measurement failed",
	"GetTeeType":               "AA-KBC get tee type failed",
	"GetResource":              "Get Resource failed",
	"UnsealSecret":             "Unseal Secret failed",
	"PullImage":                "Image Pull error",
	"SecureMount":              "Secure Mount failed",
	"UnWrapKey":                "UnwrapKey failed",
}

func text(method string) string {
	if t, ok := texts[method]; ok {
		return t
	}
	return method + " failed"
}

// notServed answers what is not built.
func notServed(what string) error { return status.Error(codes.Unimplemented, what+" is not served") }
