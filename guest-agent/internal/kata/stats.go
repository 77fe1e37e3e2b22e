package kata

import (
	"context"

	"github.com/containerd/go-runc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// statsResponse carries over what the runtime reports of a cgroup. Network
// counters are absent: all containers share the pod's interfaces.
func statsResponse(s *runc.Stats) *agent.StatsContainerResponse {
	huge := map[string]*agent.HugetlbStats{}
	for size, h := range s.Hugetlb {
		huge[size] = &agent.HugetlbStats{Usage: h.Usage, MaxUsage: h.Max, Failcnt: h.Failcnt}
	}
	return &agent.StatsContainerResponse{CgroupStats: &agent.CgroupStats{
		CpuStats: &agent.CpuStats{
			CpuUsage: &agent.CpuUsage{
				TotalUsage:        s.Cpu.Usage.Total,
				PercpuUsage:       s.Cpu.Usage.Percpu,
				UsageInKernelmode: s.Cpu.Usage.Kernel,
				UsageInUsermode:   s.Cpu.Usage.User,
			},
			ThrottlingData: &agent.ThrottlingData{
				Periods:          s.Cpu.Throttling.Periods,
				ThrottledPeriods: s.Cpu.Throttling.ThrottledPeriods,
				ThrottledTime:    s.Cpu.Throttling.ThrottledTime,
			},
		},
		MemoryStats: &agent.MemoryStats{
			Cache:       s.Memory.Cache,
			Usage:       memoryData(s.Memory.Usage),
			SwapUsage:   memoryData(s.Memory.Swap),
			KernelUsage: memoryData(s.Memory.Kernel),
			Stats:       s.Memory.Raw,
		},
		PidsStats:    &agent.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
		BlkioStats:   blkioStats(s.Blkio),
		HugetlbStats: huge,
	}}
}

func memoryData(m runc.MemoryEntry) *agent.MemoryData {
	return &agent.MemoryData{Usage: m.Usage, MaxUsage: m.Max, Failcnt: m.Failcnt, Limit: m.Limit}
}

func blkioStats(b runc.Blkio) *agent.BlkioStats {
	return &agent.BlkioStats{
		IoServiceBytesRecursive: blkioEntries(b.IoServiceBytesRecursive),
		IoServicedRecursive:     blkioEntries(b.IoServicedRecursive),
		IoQueuedRecursive:       blkioEntries(b.IoQueuedRecursive),
		IoServiceTimeRecursive:  blkioEntries(b.IoServiceTimeRecursive),
		IoWaitTimeRecursive:     blkioEntries(b.IoWaitTimeRecursive),
		IoMergedRecursive:       blkioEntries(b.IoMergedRecursive),
		IoTimeRecursive:         blkioEntries(b.IoTimeRecursive),
		SectorsRecursive:        blkioEntries(b.SectorsRecursive),
	}
}

func blkioEntries(in []runc.BlkioEntry) []*agent.BlkioStatsEntry {
	var out []*agent.BlkioStatsEntry
	for _, e := range in {
		out = append(out, &agent.BlkioStatsEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}

// GetMetrics returns what the agent counts, in the Prometheus text format. The
// host has seen the traffic that is counted.
func (s *Server) GetMetrics(_ context.Context, _ *agent.GetMetricsRequest) (*agent.Metrics, error) {
	if s.metrics == nil {
		return nil, errAbsent("GetMetrics")
	}
	return &agent.Metrics{Metrics: s.metrics()}, nil
}
