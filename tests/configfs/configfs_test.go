// Package configfs has guests prove themselves through the kernel's own
// configfs-tsm: the agent's program asks Linux, Linux asks a driver, and only
// behind that is a simulator. The driver is the module in folder provider, which
// hands each question to this test.
//
// It needs a kernel with configfs-tsm, and to be allowed to load that module: `make
// test-kernel` brings Debian's, and starts the test in it.
package configfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/obtain/obtaintest"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

func needsKernel(t *testing.T) {
	t.Helper()
	if os.Getenv("VOUCHSAFE_TSM_MODULE") == "" {
		t.Skip("this kernel has no provider of configfs-tsm: make test-kernel brings one (VOUCHSAFE_TSM_MODULE names none)")
	}
}

const (
	key    = "configfs/key/1"
	secret = "what only an attested guest gets"
)

const attestationPolicy = `package policy
import rego.v1
default executables := 33
executables := 3 if input.snp.measurement in query_reference_value("wanted")
executables := 3 if input.tdx.quote.body.rtmr_2 in query_reference_value("wanted")
trust_claims := {"executables": executables, "hardware": 2, "configuration": 2}
`

// stage is a broker with a key for one guest.
type stage struct {
	*testing.T
	world *world.World
}

// newStage starts a broker that trusts simulated roots, and gives the key to who
// measures to a value.
func newStage(t *testing.T, roots map[string]string, config string, wanted []byte) *stage {
	t.Helper()
	w, err := world.New(t.TempDir(), os.Getenv("VOUCHSAFE_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t, w}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	w.BrokerConfig = config
	if err := w.StartBroker(t.Context(), roots); err != nil {
		t.Fatal(err)
	}
	if err := w.GiveKey(t.Context(), key, secret, attestationPolicy, wanted); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Path("cmdline"), []byte("quiet"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// fetch has the agent find its platform, attest and ask for the key.
func (s *stage) fetch() (string, error) {
	return s.world.Run(s.Context(), "guest-agent", "resource", "kbs:///"+key, "--kbs", s.world.Broker.URL, "--kbs-ca", s.world.Broker.CA,
		"--kernel-cmdline", s.world.Path("cmdline"), "--runtime-log", s.world.Path("runtime-log"))
}

// try expects the key for one guest, and a refusal for another that differs from it
// in its command line.
func (s *stage) try(platform string, good, other func(tsmtest.Attributes) (tsmtest.Blobs, error)) {
	s.Helper()
	s.Run("as it was foreseen", func(t *testing.T) {
		provide(t, platform, 0, good)
		if got, err := s.fetch(); err != nil || got != secret {
			t.Errorf("%q, %v", got, err)
		}
	})
	s.Run("with another command line", func(t *testing.T) {
		provide(t, platform, 0, other)
		if got, err := s.fetch(); err == nil || !strings.Contains(err.Error(), "policy_denied") {
			t.Errorf("%q, %v", got, err)
		}
	})
	s.Run("without a driver", func(t *testing.T) {
		if got, err := s.fetch(); err == nil || !strings.Contains(err.Error(), "has no provider") {
			t.Errorf("%q, %v", got, err)
		}
	})
	nothingLeft(s.T)
}

// simulated is a path among the vendors and guests that were made for this test.
func simulated(parts ...string) string {
	return filepath.Join(append([]string{os.Getenv("VOUCHSAFE_SIMULATED")}, parts...)...)
}

func TestSNP(t *testing.T) {
	needsKernel(t)
	guest := func(name string) (*snp.Simulator, []byte) {
		s, err := snp.OpenSimulator(simulated("snp", name))
		if err != nil {
			t.Fatal(err)
		}
		ev, err := s.Evidence(t.Context(), [64]byte{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := snp.ParseEvidence(ev)
		if err != nil {
			t.Fatal(err)
		}
		return s, e.Report.Measurement[:]
	}
	good, wanted := guest("good")
	other, _ := guest("other")
	s := newStage(t, map[string]string{"lab": simulated("snp", "vendor", "root.pem")}, "", wanted)
	s.try(tsm.ProviderSNP, obtaintest.SNP(good).Report, obtaintest.SNP(other).Report)
}

func TestTDX(t *testing.T) {
	needsKernel(t)
	guest := func(name string) (func(tsmtest.Attributes) (tsmtest.Blobs, error), []byte) {
		s, err := tdx.OpenSimulator(simulated("tdx", name))
		if err != nil {
			t.Fatal(err)
		}
		k, err := obtaintest.TDX(s)
		if err != nil {
			t.Fatal(err)
		}
		registers := s.Registers()
		return k.Report, registers[2][:]
	}
	good, wanted := guest("good")
	other, _ := guest("other")
	s := newStage(t, nil, fmt.Sprintf("[verifier.tdx]\nenabled = true\ninsecure_no_collateral = true\ninsecure_simulated_roots = [{name = \"lab\", path = %q}]\n",
		simulated("tdx", "vendor", "root.pem")), wanted)
	s.try(tsm.ProviderTDX, good, other)
}
