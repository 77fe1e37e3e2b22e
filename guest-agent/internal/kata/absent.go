package kata

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// absent answers the methods that this agent does not have, with the code that
// runtimes know for that (kata-agent 1.5, 2.17).
type absent struct{}

func errAbsent(method string) error {
	return refusef(codes.Unimplemented, "%s is not implemented by this agent", method)
}

// UpdateEphemeralMounts is not implemented.
func (absent) UpdateEphemeralMounts(context.Context, *agent.UpdateEphemeralMountsRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("UpdateEphemeralMounts")
}

// GetDiagnosticData is not implemented.
func (absent) GetDiagnosticData(context.Context, *agent.GetDiagnosticDataRequest) (*agent.GetDiagnosticDataResponse, error) {
	return nil, errAbsent("GetDiagnosticData")
}

// GetIPTables is not implemented.
func (absent) GetIPTables(context.Context, *agent.GetIPTablesRequest) (*agent.GetIPTablesResponse, error) {
	return nil, errAbsent("GetIPTables")
}

// SetIPTables is not implemented.
func (absent) SetIPTables(context.Context, *agent.SetIPTablesRequest) (*agent.SetIPTablesResponse, error) {
	return nil, errAbsent("SetIPTables")
}

// GetMetrics is not implemented.
func (absent) GetMetrics(context.Context, *agent.GetMetricsRequest) (*agent.Metrics, error) {
	return nil, errAbsent("GetMetrics")
}

// MemAgentMemcgSet is not implemented.
func (absent) MemAgentMemcgSet(context.Context, *agent.MemAgentMemcgConfig) (*emptypb.Empty, error) {
	return nil, errAbsent("MemAgentMemcgSet")
}

// MemAgentCompactSet is not implemented.
func (absent) MemAgentCompactSet(context.Context, *agent.MemAgentCompactConfig) (*emptypb.Empty, error) {
	return nil, errAbsent("MemAgentCompactSet")
}

// OnlineCPUMem is not implemented.
func (absent) OnlineCPUMem(context.Context, *agent.OnlineCPUMemRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("OnlineCPUMem")
}

// ReseedRandomDev is not implemented.
func (absent) ReseedRandomDev(context.Context, *agent.ReseedRandomDevRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("ReseedRandomDev")
}

// MemHotplugByProbe is not implemented.
func (absent) MemHotplugByProbe(context.Context, *agent.MemHotplugByProbeRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("MemHotplugByProbe")
}

// SetGuestDateTime is not implemented.
func (absent) SetGuestDateTime(context.Context, *agent.SetGuestDateTimeRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("SetGuestDateTime")
}

// AddSwap is not implemented.
func (absent) AddSwap(context.Context, *agent.AddSwapRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("AddSwap")
}

// AddSwapPath is not implemented.
func (absent) AddSwapPath(context.Context, *agent.AddSwapPathRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("AddSwapPath")
}

// GetVolumeStats is not implemented.
func (absent) GetVolumeStats(context.Context, *agent.VolumeStatsRequest) (*agent.VolumeStatsResponse, error) {
	return nil, errAbsent("GetVolumeStats")
}

// ResizeVolume is not implemented.
func (absent) ResizeVolume(context.Context, *agent.ResizeVolumeRequest) (*emptypb.Empty, error) {
	return nil, errAbsent("ResizeVolume")
}
