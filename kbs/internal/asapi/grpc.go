package asapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/reference"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// GRPC returns the handler of a listener for the Attestation Service. The same
// port serves reference values, gRPC's health service and, over HTTP/1.1, the
// key set (kbs-protocol 11.1). The server must take HTTP/2, also in the clear
// if it has no TLS.
func (s *Service) GRPC(logger *slog.Logger) http.Handler {
	g := s.grpcServer(logger)
	pb.RegisterAttestationServiceServer(g, attestationServer{s: s})
	reference.RegisterReferenceValueProviderServiceServer(g, referenceServer{s: s})
	return s.around(logger, split(g, s.keySet()))
}

// RVPS returns the handler of a listener for reference values alone.
func (s *Service) RVPS(logger *slog.Logger) http.Handler {
	g := s.grpcServer(logger)
	reference.RegisterReferenceValueProviderServiceServer(g, referenceServer{s: s})
	return s.around(logger, split(g, http.NotFoundHandler()))
}

func (s *Service) grpcServer(logger *slog.Logger) *grpc.Server {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(int(s.cfg.Limits.Message)),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
			if seen := observe.From(ctx); seen != nil {
				seen.Route = info.FullMethod // one of those that there are
			}
			defer func() {
				if p := recover(); p != nil {
					note(ctx, fault.Newf(fault.Internal, "panic: %v", p))
					logger.ErrorContext(ctx, "handler panicked",
						slog.String("method", info.FullMethod), slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
					err = grpcstatus.Error(codes.Aborted, "internal")
				}
			}()
			return next(ctx, req)
		}),
	)
	healthpb.RegisterHealthServer(g, health.NewServer())
	return g
}

// split tells gRPC from HTTP on one port.
func split(g *grpc.Server, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			g.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// aborted is how the field's services fail (kbs-protocol 11.1): one code, and
// a text. Only callers that need a credential, which the field does not know,
// get the codes that gRPC has for that.
func aborted(ctx context.Context, err error) error {
	note(ctx, err)
	code := codes.Aborted
	switch status(err) {
	case http.StatusUnauthorized:
		if _, fromDoor := err.(*refusal); fromDoor { //nolint:errorlint // made by the door, never wrapped
			code = codes.Unauthenticated
		}
	case http.StatusForbidden:
		if _, fromDoor := err.(*refusal); fromDoor { //nolint:errorlint // as above
			code = codes.PermissionDenied
		}
	}
	return grpcstatus.Error(code, public(err))
}

// credential is what a caller brought along: "authorization" in the metadata.
func credential(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if all := md.Get("authorization"); len(all) == 1 {
		return all[0]
	}
	return ""
}

type attestationServer struct {
	pb.UnimplementedAttestationServiceServer
	s *Service
}

func (a attestationServer) AttestationEvaluate(ctx context.Context, r *pb.AttestationRequest) (*pb.AttestationResponse, error) {
	e, err := fromProto(r)
	token, err := a.s.evaluate(ctx, e, err)
	if err != nil {
		return nil, aborted(ctx, err)
	}
	return &pb.AttestationResponse{AttestationToken: token}, nil
}

func (a attestationServer) SetAttestationPolicy(ctx context.Context, r *pb.SetPolicyRequest) (*pb.SetPolicyResponse, error) {
	_, err := bounded(ctx, a.s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.s.door.setPolicy(ctx, credential(ctx), r.GetPolicyId(), r.GetPolicy())
	})
	if err != nil {
		return nil, aborted(ctx, err)
	}
	return &pb.SetPolicyResponse{}, nil
}

func (a attestationServer) GetAttestationChallenge(ctx context.Context, r *pb.ChallengeRequest) (*pb.ChallengeResponse, error) {
	text, err := bounded(ctx, a.s, func(ctx context.Context) (string, error) {
		return a.s.cfg.Evaluator.Challenge(ctx, r.GetInner()["tee"], r.GetInner()["tee_params"])
	})
	if err != nil {
		return nil, aborted(ctx, err)
	}
	return &pb.ChallengeResponse{AttestationChallenge: text}, nil
}

type referenceServer struct {
	reference.UnimplementedReferenceValueProviderServiceServer
	s *Service
}

func (a referenceServer) QueryReferenceValue(ctx context.Context, r *reference.ReferenceValueQueryRequest) (*reference.ReferenceValueQueryResponse, error) {
	raw, err := bounded(ctx, a.s, func(ctx context.Context) (json.RawMessage, error) {
		return a.s.door.query(ctx, credential(ctx), r.GetReferenceValueId())
	})
	if err != nil {
		return nil, aborted(ctx, err)
	}
	out := &reference.ReferenceValueQueryResponse{}
	if raw != nil {
		text := string(raw)
		out.ReferenceValueResults = &text
	}
	return out, nil
}

func (a referenceServer) RegisterReferenceValue(ctx context.Context, r *reference.ReferenceValueRegisterRequest) (*reference.ReferenceValueRegisterResponse, error) {
	_, err := bounded(ctx, a.s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.s.door.register(ctx, credential(ctx), []byte(r.GetMessage()))
	})
	if err != nil {
		return nil, aborted(ctx, err)
	}
	return &reference.ReferenceValueRegisterResponse{}, nil
}

// keySet serves the keys that the tokens are verified with.
func (s *Service) keySet() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathJWKS, func(w http.ResponseWriter, r *http.Request) {
		set, err := bounded(r.Context(), s, s.cfg.KeySet)
		if err != nil {
			fail(r.Context(), w, err)
			return
		}
		answerJSON(w, set)
	})
	return mux
}
