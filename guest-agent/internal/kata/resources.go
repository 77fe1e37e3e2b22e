package kata

import (
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// The protocol cannot tell an absent number from 0, so 0 is "not set"
// everywhere below; no limit of the OCI specification means anything else by 0
// that a runtime on the host would send.

func set[T int64 | uint64](v T) *T {
	if v == 0 {
		return nil
	}
	return &v
}

func resources(in *agent.LinuxResources) *specs.LinuxResources {
	if in == nil {
		return nil
	}
	out := &specs.LinuxResources{
		Memory:  memory(in.Memory),
		CPU:     cpu(in.CPU),
		BlockIO: blockIO(in.BlockIO),
		Network: networkLimits(in.Network),
	}
	if n := in.Pids.GetLimit(); n != 0 {
		out.Pids = &specs.LinuxPids{Limit: &n}
	}
	for _, d := range in.Devices {
		if d.Type == "" && !d.Allow {
			continue // "deny all", which holds anyway; see confineDevices
		}
		out.Devices = append(out.Devices, specs.LinuxDeviceCgroup{
			Allow: d.Allow, Type: d.Type, Major: wildcard(d.Major), Minor: wildcard(d.Minor), Access: d.Access,
		})
	}
	for _, h := range in.HugepageLimits {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	return out
}

// wildcard turns a negative device number, "all of them", into its absence.
func wildcard(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func memory(in *agent.LinuxMemory) *specs.LinuxMemory {
	if in == nil {
		return nil
	}
	out := &specs.LinuxMemory{
		Limit: set(in.Limit), Reservation: set(in.Reservation), Swap: set(in.Swap),
		Kernel:    set(in.Kernel), //nolint:staticcheck // deprecated, and for the runtime to refuse or ignore: nothing of a spec is dropped here
		KernelTCP: set(in.KernelTCP), Swappiness: set(in.Swappiness),
	}
	if in.DisableOOMKiller {
		out.DisableOOMKiller = &in.DisableOOMKiller
	}
	return out
}

func cpu(in *agent.LinuxCPU) *specs.LinuxCPU {
	if in == nil {
		return nil
	}
	return &specs.LinuxCPU{
		Shares: set(in.Shares), Quota: set(in.Quota), Period: set(in.Period),
		RealtimeRuntime: set(in.RealtimeRuntime), RealtimePeriod: set(in.RealtimePeriod),
		Cpus: in.Cpus, Mems: in.Mems,
	}
}

func blockIO(in *agent.LinuxBlockIO) *specs.LinuxBlockIO {
	if in == nil {
		return nil
	}
	out := &specs.LinuxBlockIO{
		Weight:                  weight(in.Weight),
		LeafWeight:              weight(in.LeafWeight),
		ThrottleReadBpsDevice:   throttles(in.ThrottleReadBpsDevice),
		ThrottleWriteBpsDevice:  throttles(in.ThrottleWriteBpsDevice),
		ThrottleReadIOPSDevice:  throttles(in.ThrottleReadIOPSDevice),
		ThrottleWriteIOPSDevice: throttles(in.ThrottleWriteIOPSDevice),
	}
	for _, d := range in.WeightDevice {
		w := specs.LinuxWeightDevice{Weight: weight(d.Weight), LeafWeight: weight(d.LeafWeight)}
		w.Major, w.Minor = d.Major, d.Minor
		out.WeightDevice = append(out.WeightDevice, w)
	}
	return out
}

func weight(n uint32) *uint16 {
	if n == 0 {
		return nil
	}
	w := uint16(min(n, math.MaxUint16)) // the runtime refuses what is out of range
	return &w
}

func throttles(in []*agent.LinuxThrottleDevice) []specs.LinuxThrottleDevice {
	var out []specs.LinuxThrottleDevice
	for _, d := range in {
		t := specs.LinuxThrottleDevice{Rate: d.Rate}
		t.Major, t.Minor = d.Major, d.Minor
		out = append(out, t)
	}
	return out
}

func networkLimits(in *agent.LinuxNetwork) *specs.LinuxNetwork {
	if in == nil {
		return nil
	}
	out := &specs.LinuxNetwork{}
	if in.ClassID != 0 {
		out.ClassID = &in.ClassID
	}
	for _, p := range in.Priorities {
		out.Priorities = append(out.Priorities, specs.LinuxInterfacePriority{Name: p.Name, Priority: p.Priority})
	}
	return out
}
