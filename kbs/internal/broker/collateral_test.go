package broker

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// Evidence is judged by the collateral of the configured directory, and by what
// the broker kept of it when the directory is empty later.
func TestCollateralOfFiles(t *testing.T) {
	dir := t.TempDir()
	vendor, guestDir, files := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest"), filepath.Join(dir, "files")
	must(t, dcap.CreateVendor(vendor), tdx.CreateGuest(vendor, guestDir, tdx.Launch{Image: []byte("agent"), CommandLine: "quiet"}))
	guest, err := tdx.OpenSimulator(guestDir)
	must(t, err)
	intel, err := dcap.OpenVendor(vendor)
	must(t, err)
	said, err := intel.Collateral(dcap.TDX, time.Now(), dcap.Statement{})
	must(t, err)
	must(t, said.Save(files))

	configure := func(roots []config.SimulatedRoot, files ...string) config.Config {
		cfg := testConfig(t)
		cfg.StateDir = filepath.Join(dir, "state")
		cfg.Collateral.Enabled, cfg.Collateral.Files = true, files
		cfg.Verifier.TDX.Enabled = true
		cfg.Verifier.TDX.InsecureSimulatedRoots = roots
		return cfg
	}
	lab := []config.SimulatedRoot{{Name: "lab", Path: filepath.Join(vendor, "root.pem")}}

	b := open(t, configure(lab, files), time.Now())
	got, err := judge(t, b, guest)
	if err != nil || got.Root != (measure.Root{Name: "lab", Simulated: true}) {
		t.Fatalf("root %+v, %v", got.Root, err)
	}
	names := map[string]bool{}
	for _, c := range b.collateral() {
		names[c.platform+"/"+c.name] = true
	}
	if !names["intel/rootcrl"] || !names["intel/tdx/qe"] || len(names) != 4 {
		t.Errorf("metrics and probes know of %v", names)
	}
	must(t, b.checkCollateral(t.Context()))

	kept := open(t, configure(lab, t.TempDir()), time.Now())
	if _, err := judge(t, kept, guest); err != nil {
		t.Errorf("with what the broker kept: %v", err)
	}
	late := open(t, configure(lab, files), time.Now().Add(40*24*time.Hour))
	if _, err := judge(t, late, guest); err == nil || !strings.Contains(err.Error(), "ended at") {
		t.Errorf("after its end: %v", err)
	}
	if err := late.checkCollateral(t.Context()); err == nil {
		t.Error("no probe notices that collateral has ended")
	}
	strict := open(t, configure(nil, files), time.Now())
	if _, err := judge(t, strict, guest); err == nil {
		t.Error("a vendor that nobody named is trusted")
	}
}
