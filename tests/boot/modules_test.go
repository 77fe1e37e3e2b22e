package boot

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// A machine on which a driver does not load that pods must have says so to the
// runtime, each time that it asks, and does not end before it is told to.
func TestDriverThatPodsNeed(t *testing.T) {
	t.Parallel()
	s := newStage(t, "initrd")
	cfg := s.Config()
	cfg.CommandLine += " module_blacklist=dm_crypt" // the kernel's own: EPERM
	m, err := s.Boot(t.Context(), cfg)
	s.must(err)
	defer func() { s.must(m.Stop()) }()
	for range 2 {
		refused(t, m.Kata().Pod(t.Context()), "dm_crypt")
	}
	if _, err := m.Kata().Check(t.Context(), &agent.CheckRequest{}); err != nil {
		t.Error(err)
	}
	if console, err := os.ReadFile(m.Console()); err != nil || !strings.Contains(string(console), "dm_crypt") {
		t.Errorf("the console does not name the module: %v", err)
	}
	if _, err := m.Kata().DestroySandbox(t.Context(), &agent.DestroySandboxRequest{}); err != nil {
		t.Errorf("such a machine cannot be ended: %v", err)
	}
}

// One that a machine may lack is missed by what needs it alone.
func TestDriverThatMayBeAbsent(t *testing.T) {
	t.Parallel()
	s := newStage(t, "initrd")
	cfg := s.Config()
	cfg.CommandLine += " module_blacklist=virtiofs"
	s.must(s.RunPod(t.Context(), cfg, func(*world.Kata) error { return nil }))
}

func refused(t *testing.T, err error, module string) {
	t.Helper()
	if s := status.Convert(err); err == nil || !strings.Contains(s.Message(), "driver_missing") || !strings.Contains(s.Message(), module) {
		t.Errorf("%v", err)
	}
}
