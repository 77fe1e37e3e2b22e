package server_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/lab"
)

// enabled switches a platform on. The roots are simulated ones that it names,
// and everything that can be waived is, where a lab has not what it takes.
func enabled(p measure.Platform, v *config.Verifier, roots []config.SimulatedRoot) bool {
	snp := config.SNP{Enabled: true, InsecureSimulatedRoots: roots, InsecureNoRevocation: true, RevocationLists: map[string]string{}}
	intel := config.Intel{
		Enabled: true, AcceptedTCB: []string{"UpToDate"}, InsecureSimulatedRoots: roots, InsecureNoCollateral: true, InsecureDebug: true,
	}
	switch p {
	case measure.SNP:
		v.SNP = snp
	case measure.TDX:
		v.TDX = config.TDX{Intel: intel, InsecureMigratable: true}
	case measure.SGX:
		v.SGX = config.SGX{Intel: intel}
	case measure.AzSNPvTPM:
		v.AzSNPvTPM.SNP = snp
	case measure.AzTDXvTPM:
		v.AzTDXvTPM.TDX = config.TDX{Intel: intel, InsecureMigratable: true}
	case measure.TPM:
		v.TPM = config.TPM{Enabled: true, InsecureSimulatedRoots: roots, InsecureNoRevocation: true}
	case measure.CCA:
		v.CCA = config.CCA{Enabled: true, InsecureSimulatedRoots: roots, InsecureAnyLifecycle: true}
	default:
		return false
	}
	return true
}

// notHere are the platforms of other tests.
var notHere = map[measure.Platform]string{
	measure.NVIDIA: "no CPU: see gpus_test.go", measure.Sample: "no root: see devices_test.go", measure.SampleDevice: "no CPU: see devices_test.go",
}

// Every platform, from its table in the configuration to a submod of the token:
// where the configuration names the simulated root, the token says so; where it
// does not, there is no token, whatever else is waived.
func TestEveryPlatform(t *testing.T) {
	for _, p := range lab.Platforms() {
		t.Run(string(p), func(t *testing.T) {
			dir := t.TempDir()
			l, err := lab.Open(p, dir)
			if err != nil {
				t.Fatal(err)
			}
			root := config.SimulatedRoot{Name: lab.RootName, Path: filepath.Join(dir, "vendor", map[bool]string{true: "root.json", false: "root.pem"}[p == measure.CCA])}
			if why, ok := notHere[p]; ok {
				t.Skip(why)
			}
			if !enabled(p, new(config.Verifier), nil) {
				t.Fatal("the platform is verified, and this test does not know its table")
			}
			s := newStageTrusting(t)
			guest := func() *client.Client {
				return s.clientOf(l.Guest, func(c *client.Config) { c.InitData = nil })
			}
			s.restartWith(func(c *config.Config) { enabled(p, &c.Verifier, []config.SimulatedRoot{root}) })
			tok, err := guest().Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			cpu := submods(t, string(tok.JWT.Reveal()))["cpu0"]
			var evidence map[string]json.RawMessage
			if err := json.Unmarshal(cpu["ear.veraison.annotated-evidence"], &evidence); err != nil || evidence[string(p)] == nil {
				t.Errorf("evidence %s, %v", evidence, err)
			}
			if string(cpu["ear.vouchsafe.simulated-root"]) != `"`+lab.RootName+`"` || string(cpu["ear.status"]) == `"affirming"` {
				t.Errorf("status %s, root %s", cpu["ear.status"], cpu["ear.vouchsafe.simulated-root"])
			}

			s.restartWith(func(c *config.Config) { enabled(p, &c.Verifier, nil) })
			if _, err := guest().Token(t.Context()); fault.CodeOf(err) != fault.RootUntrusted {
				t.Errorf("a root that nobody named: %v", err)
			}
		})
	}
}
