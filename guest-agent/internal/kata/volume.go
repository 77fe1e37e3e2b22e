package kata

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// GetVolumeStats tells how full a volume is. The host learns no more than the two
// sizes, and only of places that volumes can have.
func (s *Server) GetVolumeStats(_ context.Context, req *agent.VolumeStatsRequest) (*agent.VolumeStatsResponse, error) {
	u, err := s.sandbox.Usage(req.VolumeGuestPath)
	if err != nil {
		return nil, err
	}
	return &agent.VolumeStatsResponse{
		Usage: []*agent.VolumeUsage{
			{Unit: agent.VolumeUsage_BYTES, Total: u.Bytes, Available: u.BytesAvailable, Used: u.Bytes - u.BytesFree},
			{Unit: agent.VolumeUsage_INODES, Total: u.Inodes, Available: u.InodesFree, Used: u.Inodes - u.InodesFree},
		},
		VolumeCondition: &agent.VolumeCondition{},
	}, nil
}

// ResizeVolume lets a volume's filesystem have the disk that the host has made
// larger.
func (s *Server) ResizeVolume(_ context.Context, req *agent.ResizeVolumeRequest) (*emptypb.Empty, error) {
	return empty, s.sandbox.Grow(req.VolumeGuestPath, req.Size)
}

// UpdateEphemeralMounts gives volumes in memory other sizes.
func (s *Server) UpdateEphemeralMounts(_ context.Context, req *agent.UpdateEphemeralMountsRequest) (*emptypb.Empty, error) {
	return empty, s.sandbox.Remount(req.Storages)
}
