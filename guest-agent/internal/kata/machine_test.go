package kata

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/iptables"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/machine"
)

// fakeMachine writes down what it is asked for.
type fakeMachine struct {
	machine.Machine
	mu    sync.Mutex
	asked []string
}

func (f *fakeMachine) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	return nil
}

func (f *fakeMachine) Online(_ context.Context, wait bool, cpus int, cpuOnly bool) error {
	return f.note("online %v %d %v", wait, cpus, cpuOnly)
}
func (f *fakeMachine) Probe(addresses []uint64) error { return f.note("probe %v", addresses) }
func (f *fakeMachine) SetTime(t time.Time) error      { return f.note("time %d", t.UnixMicro()) }
func (f *fakeMachine) Reseed(data []byte) error       { return f.note("reseed %s", data) }
func (f *fakeMachine) LoadModules(_ context.Context, m []machine.Module) error {
	if len(m) == 0 {
		return nil
	}
	return f.note("modules %v", m)
}

// fakeTables are a packet filter that knows one rule.
type fakeTables struct{ set string }

func (f *fakeTables) Save(_ context.Context, ipv6 bool) ([]byte, error) {
	return fmt.Appendf(nil, "rules %v", ipv6), nil
}

func (f *fakeTables) Restore(_ context.Context, _ bool, rules []byte) ([]byte, error) {
	f.set = string(rules)
	return nil, nil
}

// change is one call that changes the machine.
type change struct {
	name string
	call func(context.Context, agent.AgentServiceService) error
	want string // what the machine is asked for
}

var changes = []change{
	{"SetIPTablesRequest", func(ctx context.Context, c agent.AgentServiceService) error {
		_, err := c.SetIPTables(ctx, &agent.SetIPTablesRequest{Data: []byte("*nat")})
		return err
	}, ""},
	{"MemHotplugByProbeRequest", func(ctx context.Context, c agent.AgentServiceService) error {
		_, err := c.MemHotplugByProbe(ctx, &agent.MemHotplugByProbeRequest{MemHotplugProbeAddr: []uint64{1 << 32}})
		return err
	}, "probe [4294967296]"},
	{"SetGuestDateTimeRequest", func(ctx context.Context, c agent.AgentServiceService) error {
		_, err := c.SetGuestDateTime(ctx, &agent.SetGuestDateTimeRequest{Sec: 1_900_000_000, Usec: 7})
		return err
	}, "time 1900000000000007"},
	{"AddSwapRequest", func(ctx context.Context, c agent.AgentServiceService) error {
		_, err := c.AddSwap(ctx, &agent.AddSwapRequest{PCIPath: []uint32{2, 0}})
		return err
	}, ""},
	{"AddSwapPathRequest", func(ctx context.Context, c agent.AgentServiceService) error {
		_, err := c.AddSwapPath(ctx, &agent.AddSwapPathRequest{Path: "/dev/vdb"})
		return err
	}, ""},
}

// What changes the machine below the pod needs a policy that allows it by name;
// that the policy is waived is not enough.
func TestMachineNeedsPolicy(t *testing.T) {
	t.Parallel()
	m, tables := &fakeMachine{}, &fakeTables{}
	p := newPod(t, func(c *Config) { c.Machine, c.Tables = m, tables })
	for _, c := range changes {
		err := c.call(t.Context(), p.client)
		wantCode(t, err, codes.PermissionDenied)
		if !strings.Contains(err.Error(), c.name+" is blocked by policy") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{SandboxId: "s1", KernelModules: []*agent.KernelModule{{Name: "nvme"}}})
	wantCode(t, err, codes.PermissionDenied)
	if len(m.asked) > 0 || tables.set != "" {
		t.Errorf("the machine was changed: %q, %q", m.asked, tables.set)
	}
}

// A policy that sees the request and allows it has it carried out.
func TestMachineUnderPolicy(t *testing.T) {
	t.Parallel()
	m, tables := &fakeMachine{}, &fakeTables{}
	p := newPod(t, underPolicy(t, nil, ordinary+`
		SetIPTablesRequest if { input.is_ipv6 == false; input.data == [42, 110, 97, 116] }
		MemHotplugByProbeRequest if input.memHotplugProbeAddr == [4294967296]
		SetGuestDateTimeRequest if { input.Sec == 1900000000; input.Usec == 7 }
		AddSwapRequest if input.PCIPath == [2, 0]
		AddSwapPathRequest if input.path == "/dev/vdb"
		OnlineCPUMemRequest if { input.wait == true; input.nb_cpus == 2; input.cpu_only == false }
		ReseedRandomDevRequest if input.data == [120]
		GetIPTablesRequest := true
		MemAgentMemcgConfig if { input.disabled == true; input.swap == null }
		MemAgentCompactConfig if input.period_secs == null
		`), func(c *Config) { c.Machine, c.Tables = m, tables })
	var want []string
	for _, c := range changes {
		err := c.call(t.Context(), p.client)
		if strings.HasPrefix(c.name, "AddSwap") {
			wantCode(t, err, codes.FailedPrecondition) // no disk is encrypted here
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != "" {
			want = append(want, c.want)
		}
	}
	if tables.set != "*nat" {
		t.Errorf("rules %q", tables.set)
	}
	if r, err := p.client.GetIPTables(t.Context(), &agent.GetIPTablesRequest{IsIpv6: true}); err != nil || string(r.Data) != "rules true" {
		t.Errorf("%v, %v", r, err)
	}
	yes := true
	for name, call := range map[string]func() error{
		"OnlineCPUMem": func() error {
			_, err := p.client.OnlineCPUMem(t.Context(), &agent.OnlineCPUMemRequest{Wait: true, NbCpus: 2})
			return err
		},
		"MemAgentMemcgSet": func() error {
			_, err := p.client.MemAgentMemcgSet(t.Context(), &agent.MemAgentMemcgConfig{Disabled: &yes})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.client.ReseedRandomDev(t.Context(), &agent.ReseedRandomDevRequest{Data: []byte("x")}); err != nil {
		t.Error(err)
	}
	_, err := p.client.MemAgentCompactSet(t.Context(), &agent.MemAgentCompactConfig{})
	wantCode(t, err, codes.Unimplemented)
	_, err = p.client.SetGuestDateTime(t.Context(), &agent.SetGuestDateTimeRequest{Sec: 1, Usec: 7})
	wantCode(t, err, codes.PermissionDenied)
	want = append(want, "online true 2 false", "reseed x")
	if got := strings.Join(m.asked, "; "); got != strings.Join(want, "; ") {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

// swapped writes down what is swapped to.
type swapped []string

func (s *swapped) Add(_ context.Context, b device.Block) error {
	*s = append(*s, b.Path)
	return nil
}

// A disk that a policy allows is found, and given to what encrypts it.
func TestSwap(t *testing.T) {
	t.Parallel()
	one, two := newDisk(t, ""), newDisk(t, "")
	var to swapped
	p := newPod(t, underPolicy(t, nil, ordinary+`
		AddSwapRequest if input.PCIPath[0] < 256
		AddSwapRequest if input.PCIPath[0] == 512
		AddSwapPathRequest if startswith(input.path, "/dev/")`),
		func(c *Config) { c.Swap, c.Devices = &to, disks{"02/1f": one, "/dev/vdb": two} })
	if _, err := p.client.AddSwap(t.Context(), &agent.AddSwapRequest{PCIPath: []uint32{2, 31}}); err != nil {
		t.Error(err)
	}
	if _, err := p.client.AddSwapPath(t.Context(), &agent.AddSwapPathRequest{Path: "/dev/vdb"}); err != nil {
		t.Error(err)
	}
	if !slices.Equal(to, swapped{one.Path, two.Path}) {
		t.Errorf("swapped to %v", to)
	}
	for want, path := range map[codes.Code][]uint32{codes.InvalidArgument: {512}, codes.DeadlineExceeded: {3}} {
		_, err := p.client.AddSwap(t.Context(), &agent.AddSwapRequest{PCIPath: path})
		wantCode(t, err, want)
	}
	_, err := p.client.AddSwapPath(t.Context(), &agent.AddSwapPathRequest{Path: "/dev/mapper/root"})
	wantCode(t, err, codes.InvalidArgument)
}

// A guest whose image has no iptables says so.
func TestNoTables(t *testing.T) {
	t.Parallel()
	p := newPod(t, func(c *Config) { c.Tables = iptables.Tables{Dirs: []string{t.TempDir()}} })
	_, err := p.client.GetIPTables(t.Context(), &agent.GetIPTablesRequest{})
	wantCode(t, err, codes.Unimplemented)
}
