// Package service serves what a token holds to the broker, by gRPC over a unix
// socket: the protocols are kbs/api/proto/keyholder and kbs/api/proto/tokenstore.
package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/keyholder"
	ts "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/tokenstore"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	maxRequest = token.MaxValue + 4<<10 // bytes
	maxStreams = 256                    // calls of one connection at once

	greeting = 5 * time.Second  // for a connection's first words
	drain    = 30 * time.Second // for calls that have begun, unless told otherwise
)

// Keys is what the service needs of a token.
type Keys interface {
	Keys(ctx context.Context, label string) ([]string, error)
	Make(ctx context.Context, label string) (string, error)
	Wrap(ctx context.Context, label, name string, plaintext secret.Bytes, bound []byte) ([]byte, error)
	Unwrap(ctx context.Context, label, name string, wrapped, bound []byte) (secret.Bytes, error)
}

// Served is what there is to serve; what is left out is not.
type Served struct {
	Keys    Keys
	Label   string // of Keys
	Objects Objects
	Pairs   Pairs
	Pair    token.Pair // of Pairs

	Drain time.Duration // how long calls that have begun may take when Serve is to end; 0: 30 s
}

// Serve answers at l until ctx ends, and then finishes what it has begun. A call
// whose request never came in whole is broken off after what.Drain.
func Serve(ctx context.Context, l net.Listener, what Served, logger *slog.Logger) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(greeting), grpc.UnaryInterceptor(guard(logger)))
	if what.Keys != nil {
		pb.RegisterKeyHolderServer(s, &holder{keys: what.Keys, label: what.Label})
	}
	if what.Objects != nil {
		ts.RegisterTokenStoreServer(s, &objects{of: what.Objects})
	}
	if what.Pairs != nil {
		ts.RegisterKeyWrapServer(s, &pair{of: what.Pairs, pair: what.Pair})
	}
	stopped := make(chan struct{})
	ended, end := context.WithCancel(ctx)
	go func() {
		defer close(stopped)
		<-ended.Done()
		defer time.AfterFunc(cmp.Or(what.Drain, drain), s.Stop).Stop()
		s.GracefulStop()
	}()
	err := s.Serve(l)
	end()
	<-stopped
	return err
}

// guard logs what did not go well, and keeps a defect in one call from ending
// the process.
func guard(logger *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
		defer func() {
			if p := recover(); p != nil { // its value may hold what was asked for
				logger.ErrorContext(ctx, "panic", slog.String("method", info.FullMethod), slog.String("stack", string(debug.Stack())))
				out, err = nil, status.Error(codes.Internal, "internal error")
			}
		}()
		out, err = next(ctx, req)
		if err != nil && status.Code(err) != codes.DataLoss { // that is the broker's to report
			logger.WarnContext(ctx, "refused", slog.String("method", info.FullMethod), slog.Any("error", err))
		}
		return out, err
	}
}

type holder struct {
	pb.UnimplementedKeyHolderServer
	keys  Keys
	label string
}

func (h *holder) Describe(ctx context.Context, _ *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	names, err := h.keys.Keys(ctx, h.label)
	if err != nil {
		return nil, coded(err)
	}
	out := &pb.DescribeResponse{}
	for _, n := range names {
		out.Keys = append(out.Keys, &pb.Key{Id: n})
	}
	return out, nil
}

func (h *holder) Make(ctx context.Context, _ *pb.MakeRequest) (*pb.Key, error) {
	name, err := h.keys.Make(ctx, h.label)
	if err != nil {
		return nil, coded(err)
	}
	return &pb.Key{Id: name}, nil
}

func (h *holder) Wrap(ctx context.Context, in *pb.WrapRequest) (*pb.WrapResponse, error) {
	plain := secret.New(in.GetPlaintext())
	defer plain.Destroy()
	wrapped, err := h.keys.Wrap(ctx, h.label, in.GetKeyId(), plain, in.GetBound())
	if err != nil {
		return nil, coded(err)
	}
	return &pb.WrapResponse{Wrapped: wrapped}, nil
}

func (h *holder) Unwrap(ctx context.Context, in *pb.UnwrapRequest) (*pb.UnwrapResponse, error) {
	plain, err := h.keys.Unwrap(ctx, h.label, in.GetKeyId(), in.GetWrapped(), in.GetBound())
	if err != nil {
		return nil, coded(err)
	}
	return &pb.UnwrapResponse{Plaintext: plain.Reveal()}, nil // grpc writes it after we are gone, so it cannot be wiped here
}

// coded gives the errors of a token the codes of the protocol.
func coded(err error) error {
	c := codes.Internal
	switch {
	case errors.Is(err, token.ErrUnknown):
		c = codes.NotFound
	case errors.Is(err, token.ErrOpen):
		c = codes.DataLoss
	case errors.Is(err, token.ErrSize), errors.Is(err, token.ErrPath):
		c = codes.InvalidArgument
	case errors.Is(err, token.ErrKey), errors.Is(err, token.ErrPIN):
		c = codes.FailedPrecondition
	case errors.Is(err, token.ErrAway):
		c = codes.Unavailable
	}
	return status.Error(c, err.Error())
}
