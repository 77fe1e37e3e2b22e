package broker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

var (
	bootOfAGuest = tpm.Launch{Image: []byte("agent"), CommandLine: "quiet"}
	anyDigest    = []byte("a digest of 48 bytes, of a nonce and of a key...")
)

func judge(t *testing.T, b *Broker, guest measure.Attester) (measure.Verdict, error) {
	t.Helper()
	ev, err := measure.EvidenceOver(t.Context(), guest, anyDigest)
	if err != nil {
		t.Fatal(err)
	}
	v, ok := b.verifiers.Verifier(guest.Platform())
	if !ok {
		t.Fatalf("there is no verifier of %s", guest.Platform())
	}
	return v.Verify(t.Context(), ev, measure.Expected{ReportData: measure.BoundTo(anyDigest), InitData: measure.NotPresented()})
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A guest whose key is added to the file of enrolled keys is known at once, and
// one whose key is removed is not any more.
func TestEnrolmentWhileTheBrokerRuns(t *testing.T) {
	dir := t.TempDir()
	maker, keys := filepath.Join(dir, "maker"), filepath.Join(dir, "keys.pem")
	must(t, tpm.CreateVendor(maker))
	var guests []*tpm.Simulator
	var known [][]byte
	for _, name := range []string{"one", "two"} {
		at := filepath.Join(dir, name)
		must(t, tpm.CreateGuest(maker, at, bootOfAGuest))
		guest, err := tpm.OpenSimulator(at)
		must(t, err)
		key, err := os.ReadFile(filepath.Join(at, "ak.pem"))
		must(t, err)
		guests, known = append(guests, guest), append(known, key)
	}
	enrol := func(keysOf ...[]byte) {
		t.Helper()
		var all []byte
		for _, k := range keysOf {
			all = append(all, k...)
		}
		must(t, os.WriteFile(keys, all, 0o600))
	}
	enrol(known[0])
	cfg := testConfig(t)
	cfg.Verifier.TPM.Enabled = true
	cfg.Verifier.TPM.EnrolledKeys = []config.NamedFile{{Name: "racks", Path: keys}}
	b := open(t, cfg, start)
	expect := func(want ...bool) {
		t.Helper()
		for i, guest := range guests {
			got, err := judge(t, b, guest)
			if (err == nil) != want[i] || want[i] && got.Root != (measure.Root{Name: "racks", Simulated: true}) {
				t.Errorf("guest %d: root %+v, %v", i, got.Root, err)
			}
		}
	}
	expect(true, false)
	enrol(known...)
	b.Reload(t.Context(), []string{keys})
	expect(true, true)
	enrol([]byte("no key"))
	b.Reload(t.Context(), []string{keys})
	expect(true, true)
	enrol(known[1])
	b.Reload(t.Context(), []string{keys})
	expect(false, true)
}

// What the table of a platform names is what its verifier trusts.
func TestAzureTable(t *testing.T) {
	dir := t.TempDir()
	vendor, guestDir := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")
	must(t, snp.CreateVendor(vendor, "Milan"), azure.CreateGuest(measure.AzSNPvTPM, vendor, guestDir, bootOfAGuest))
	guest, err := azure.OpenSimulator(guestDir)
	must(t, err)
	cfg := testConfig(t)
	cfg.Verifier.SNP.InsecureSimulatedRoots = []config.SimulatedRoot{{Name: "lab", Path: filepath.Join(vendor, "root.pem")}}
	cfg.Verifier.AzSNPvTPM.Enabled = true
	b := open(t, cfg, time.Now())
	if _, err := judge(t, b, guest); err == nil {
		t.Error("a root that only verifier.snp names is trusted")
	}
	cfg = testConfig(t)
	cfg.Verifier.AzSNPvTPM.Enabled = true
	cfg.Verifier.AzSNPvTPM.InsecureSimulatedRoots = []config.SimulatedRoot{{Name: "lab", Path: filepath.Join(vendor, "root.pem")}}
	b = open(t, cfg, time.Now())
	if got, err := judge(t, b, guest); err != nil || got.Root != (measure.Root{Name: "lab", Simulated: true}) {
		t.Errorf("root %+v, %v", got.Root, err)
	}
}
