package kata

import (
	"context"
	"fmt"
	"math"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// Swap gives the guest's memory an encrypted disk; see package swap.
type Swap interface {
	Add(ctx context.Context, b device.Block) error
}

// errNoSwap is why memory is not swapped out: a disk is the host's, who would
// read what lies on it.
var errNoSwap = refusef(codes.FailedPrecondition, "swap needs a disk that the agent encrypts, and it has none")

// AddSwap swaps to a disk at a place on the PCI bus.
func (s *Server) AddSwap(ctx context.Context, req *agent.AddSwapRequest) (*emptypb.Empty, error) {
	var path []string
	for _, slot := range req.PCIPath {
		if slot > math.MaxUint8 {
			return nil, invalidf("%d is no place on a PCI bus", slot)
		}
		path = append(path, fmt.Sprintf("%02x", slot))
	}
	return empty, s.addSwap(ctx, strings.Join(path, "/"))
}

// AddSwapPath swaps to a disk by its node.
func (s *Server) AddSwapPath(ctx context.Context, req *agent.AddSwapPathRequest) (*emptypb.Empty, error) {
	return empty, s.addSwap(ctx, req.Path)
}

func (s *Server) addSwap(ctx context.Context, where string) error {
	a, err := device.ParseAddress(device.PCI, where)
	if err != nil {
		return err
	}
	if s.swap == nil || s.devices == nil {
		return errNoSwap
	}
	b, err := s.devices.Find(ctx, a)
	if err == nil {
		err = b.Unused()
	}
	if err != nil {
		return err
	}
	return s.swap.Add(ctx, b)
}
