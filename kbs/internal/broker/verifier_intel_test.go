package broker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

func TestIntelVerifiers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vendor")
	if err := dcap.CreateVendor(dir); err != nil {
		t.Fatal(err)
	}
	root := []config.SimulatedRoot{{Name: "lab", Path: filepath.Join(dir, "root.pem")}}
	up := []string{"UpToDate"}
	v := config.Verifier{
		TDX: config.TDX{Intel: config.Intel{Enabled: true, AcceptedTCB: up, InsecureSimulatedRoots: root}},
		SGX: config.SGX{Intel: config.Intel{Enabled: true, AcceptedTCB: up, InsecureSimulatedRoots: root}},
	}
	for name, open := range map[measure.Platform]opener{measure.TDX: openTDX, measure.SGX: openSGX} {
		// without collateral, nothing can be judged: better no broker than one
		// that refuses every guest
		if _, err := open(v, tools{now: time.Now}); err == nil || !strings.Contains(err.Error(), "collateral.enabled") {
			t.Errorf("%s without collateral: %v", name, err)
		}
		all, err := open(v, tools{now: time.Now, published: new(collateral.Store)})
		if err != nil || len(all) != 1 || all[0].Platform() != name {
			t.Errorf("%s with collateral: %v, %v", name, all, err)
		}
		if all, err := open(config.Verifier{}, tools{}); err != nil || all != nil {
			t.Errorf("%s that is not enabled: %v, %v", name, all, err)
		}
	}
	waived := config.Verifier{TDX: config.TDX{Intel: config.Intel{Enabled: true, AcceptedTCB: up, InsecureNoCollateral: true}}}
	if all, err := openTDX(waived, tools{now: time.Now}); err != nil || len(all) != 1 {
		t.Errorf("with the waiver: %v, %v", all, err)
	}

	// the same vendor may stand in both tables
	trusted, err := authorities(v)
	if err != nil {
		t.Fatal(err)
	}
	simulated := 0
	for _, c := range trusted {
		if strings.HasPrefix(c.Subject.SerialNumber, "simulated-") {
			simulated++
		}
	}
	if simulated != 2 {
		t.Errorf("the vendor is trusted %d times with what it publishes, want once for each table", simulated)
	}
	if err := os.WriteFile(root[0].Path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authorities(v); err == nil || !strings.Contains(err.Error(), "verifier.tdx") {
		t.Errorf("a root that cannot be read: %v", err)
	}
}
