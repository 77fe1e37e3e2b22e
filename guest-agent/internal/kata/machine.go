package kata

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/machine"
)

// Machine is the guest's kernel as far as a runtime changes it; see package
// machine.
type Machine interface {
	Online(ctx context.Context, wait bool, cpus int, cpuOnly bool) error
	Probe(addresses []uint64) error
	SetTime(t time.Time) error
	Reseed(data []byte) error
	LoadModules(ctx context.Context, modules []machine.Module) error
	MemoryBlockSize() uint64
	HasProbe() bool
}

// Tables are the guest's packet filter; see package iptables.
type Tables interface {
	Save(ctx context.Context, ipv6 bool) ([]byte, error)
	Restore(ctx context.Context, ipv6 bool, rules []byte) ([]byte, error)
}

// maxCPUs bounds what can be waited for; Linux itself has at most 8192.
const maxCPUs = 8192

// OnlineCPUMem takes what was plugged in into use.
func (s *Server) OnlineCPUMem(ctx context.Context, req *agent.OnlineCPUMemRequest) (*emptypb.Empty, error) {
	if req.NbCpus > maxCPUs {
		return nil, invalidf("%d processors, at most %d are possible", req.NbCpus, maxCPUs)
	}
	return empty, s.machine.Online(ctx, req.Wait, int(req.NbCpus), req.CpuOnly)
}

// MemHotplugByProbe tells the kernel where memory was plugged in.
func (s *Server) MemHotplugByProbe(_ context.Context, req *agent.MemHotplugByProbeRequest) (*emptypb.Empty, error) {
	return empty, s.machine.Probe(req.MemHotplugProbeAddr)
}

// ReseedRandomDev mixes the host's bytes into the entropy pool.
func (s *Server) ReseedRandomDev(_ context.Context, req *agent.ReseedRandomDevRequest) (*emptypb.Empty, error) {
	return empty, s.machine.Reseed(req.Data)
}

// SetGuestDateTime puts the clock forward.
func (s *Server) SetGuestDateTime(_ context.Context, req *agent.SetGuestDateTimeRequest) (*emptypb.Empty, error) {
	const second = 1_000_000 // in microseconds
	if req.Sec < 0 || req.Usec < 0 || req.Usec >= second {
		return nil, invalidf("%d seconds and %d microseconds are no time", req.Sec, req.Usec)
	}
	return empty, s.machine.SetTime(time.Unix(req.Sec, req.Usec*int64(time.Microsecond)))
}

// GetIPTables returns the rules of the packet filter.
func (s *Server) GetIPTables(ctx context.Context, req *agent.GetIPTablesRequest) (*agent.GetIPTablesResponse, error) {
	rules, err := s.tables.Save(ctx, req.IsIpv6)
	if err != nil {
		return nil, err
	}
	return &agent.GetIPTablesResponse{Data: rules}, nil
}

// SetIPTables replaces them.
func (s *Server) SetIPTables(ctx context.Context, req *agent.SetIPTablesRequest) (*agent.SetIPTablesResponse, error) {
	said, err := s.tables.Restore(ctx, req.IsIpv6, req.Data)
	if err != nil {
		return nil, err
	}
	return &agent.SetIPTablesResponse{Data: said}, nil
}

// modules are the kernel modules that a sandbox wants.
func modules(in []*agent.KernelModule) []machine.Module {
	var out []machine.Module
	for _, m := range in {
		out = append(out, machine.Module{Name: m.GetName(), Parameters: m.GetParameters()})
	}
	return out
}

// The memory agent of the field reclaims and compacts a guest's memory, so that
// its host can have what is free. A confidential guest has no use for it: its
// pages were accepted at launch, are encrypted and pinned, and do not go back to
// the host, and what it would swap out goes to a disk of the host's. Here it is
// never on, so it can only be turned off.

// MemAgentMemcgSet accepts that the memory agent stays off.
func (s *Server) MemAgentMemcgSet(_ context.Context, req *agent.MemAgentMemcgConfig) (*emptypb.Empty, error) {
	return empty, memAgent("MemAgentMemcgSet", req.Disabled)
}

// MemAgentCompactSet is like MemAgentMemcgSet.
func (s *Server) MemAgentCompactSet(_ context.Context, req *agent.MemAgentCompactConfig) (*emptypb.Empty, error) {
	return empty, memAgent("MemAgentCompactSet", req.Disabled)
}

func memAgent(method string, disabled *bool) error {
	if disabled != nil && *disabled {
		return nil
	}
	return errAbsent(method + " (but to turn the memory agent off: a confidential guest gives no memory back)")
}
