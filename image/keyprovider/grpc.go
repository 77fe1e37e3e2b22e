package keyprovider

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const serviceName = "keyprovider.KeyProviderService"

// answerer is what the service needs of a [Provider].
type answerer interface {
	Answer(ctx context.Context, want Operation, raw []byte) ([]byte, error)
}

// service is keyprovider.KeyProviderService (guest-protocol 2). Its messages have
// one member, bytes with the number 1, and so has BytesValue: on the wire they
// are the same, and no code needs to be generated.
var service = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*answerer)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "WrapKey", Handler: method(Wrap)},
		{MethodName: "UnWrapKey", Handler: method(Unwrap)},
	},
}

func method(op Operation) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.BytesValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		answer, err := srv.(answerer).Answer(ctx, op, in.GetValue())
		if err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		return wrapperspb.Bytes(answer), nil
	}
}

// Serve answers over gRPC until the context ends, and then lets what was asked
// be answered. Whoever can connect can have layers wrapped and opened: the
// listener is a socket of the user alone, or on loopback.
func (p *Provider) Serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessage + 64))
	s.RegisterService(&service, p)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		s.GracefulStop()
	})
	err := s.Serve(l)
	if !stop() {
		<-done
		return nil
	}
	return err
}
