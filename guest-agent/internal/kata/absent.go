package kata

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// errAbsent answers what this agent was not given, with the code that runtimes
// know for that (kata-agent 1.5).
func errAbsent(what string) error {
	return refusef(codes.Unimplemented, "%s is not implemented by this agent", what)
}

// errNoSwap is why memory is not swapped out: a disk is the host's, who would
// read what lies on it.
var errNoSwap = refusef(codes.FailedPrecondition, "swap needs a disk that the agent encrypts, and it has none")

// AddSwap refuses a disk without encryption.
func (s *Server) AddSwap(context.Context, *agent.AddSwapRequest) (*emptypb.Empty, error) {
	return nil, errNoSwap
}

// AddSwapPath is like AddSwap.
func (s *Server) AddSwapPath(context.Context, *agent.AddSwapPathRequest) (*emptypb.Empty, error) {
	return nil, errNoSwap
}
