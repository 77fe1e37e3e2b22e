package snp

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

var (
	_ measure.Attester = (*Simulator)(nil)
	_ measure.Verifier = (*Verifier)(nil)
)

// crlGetter serves the simulated vendor's list where AMD's would be fetched.
type crlGetter struct{ url, crl string }

func (g crlGetter) Get(url string) ([]byte, error) {
	if url != g.url {
		return nil, fmt.Errorf("asked for %s", url)
	}
	return []byte(g.crl), nil
}

// go-sev-guest, as others use it, accepts the simulated vendor once that is
// its root, and not otherwise.
func TestLibraryAcceptsSimulatedVendor(t *testing.T) {
	for _, g := range []Generation{Milan, Genoa} {
		t.Run(string(g), func(t *testing.T) {
			l := newLab(t, g)
			report, err := abi.ReportToProto(l.evidence().Report.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			attestation := &sevsnp.Attestation{Report: report, CertificateChain: &sevsnp.CertificateChain{
				VcekCert: l.sim.chain[0].Data, AskCert: l.sim.chain[1].Data, ArkCert: l.sim.chain[2].Data,
			}}
			options := verify.Options{
				CheckRevocations: true, DisableCertFetching: true, Now: l.now,
				Getter: crlGetter{kds.CrlLinkByRole(string(g), "ASK"), string(l.vendor.crl.Raw)},
				TrustedRoots: map[string][]*trust.AMDRootCerts{string(g): {{
					ProductLine: string(g), ProductCerts: &trust.ProductCerts{Ark: l.vendor.ark, Ask: l.vendor.ask},
				}}},
			}
			if err := verify.SnpAttestation(attestation, &options); err != nil {
				t.Errorf("verify: %v", err)
			}
			measurement, err := Predict(l.launch)
			if err != nil {
				t.Fatal(err)
			}
			vmpl := 0
			if err := validate.SnpAttestation(attestation, &validate.Options{
				GuestPolicy: abi.SnpPolicy{SMT: true}, Measurement: measurement[:], HostData: l.launch.InitDataDigest[:32],
				ReportData: challenge[:], VMPL: &vmpl, PlatformInfo: &abi.SnpPlatformInfo{SMTEnabled: true, AliasCheckComplete: true},
			}); err != nil {
				t.Errorf("validate: %v", err)
			}
			if err := verify.SnpAttestation(attestation, &verify.Options{DisableCertFetching: true, Now: l.now}); err == nil {
				t.Error("AMD's roots accept the simulated vendor")
			}
		})
	}
}

func TestSimulator(t *testing.T) {
	l := newLab(t, Genoa)
	if err := l.sim.BindInitData(t.Context(), l.launch.InitDataDigest); err != nil {
		t.Error(err)
	}
	if err := l.sim.BindInitData(t.Context(), nil); !errors.Is(err, initdata.ErrField) {
		t.Errorf("withheld init-data: %v", err)
	}
	ev, err := l.sim.Evidence(context.Background(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.verifier().Verify(context.Background(), ev, l.expected()); err != nil {
		t.Error(err)
	}
	e, err := ParseEvidence(ev)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []CertType{CertVCEK, CertASK, CertARK} {
		if len(e.Certificates) != 3 || e.Certificates[i].Type != want {
			t.Fatalf("chain %v", e.Certificates)
		}
	}
	if p := e.Report.Policy; p&(1<<18|1<<19) != 0 {
		t.Errorf("policy %#x allows debugging or migration", p)
	}
	if e.Report.Measurement == l.guest(Launch{Image: []byte("x")}).report.Measurement {
		t.Error("two images have one measurement")
	}
	if second := l.guest(l.launch); second.report.ChipID == l.sim.report.ChipID || second.key.Equal(l.sim.key) {
		t.Error("two guests share a chip or a key")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.sim.Evidence(ctx, challenge); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
}

func TestKeyFilesArePrivate(t *testing.T) {
	l := newLab(t, Genoa)
	guest := filepath.Join(t.TempDir(), "guest")
	if err := CreateGuest(l.vendorDir, guest, l.launch); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(l.vendorDir, fileARKKey), filepath.Join(l.vendorDir, fileASKKey), filepath.Join(guest, fileLeafKey(VCEK))} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	l := newLab(t, Genoa)
	before, err := os.ReadFile(filepath.Join(l.vendorDir, fileASKKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := CreateVendor(l.vendorDir, "Genoa"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second vendor in the directory: %v", err)
	}
	if err := os.Remove(filepath.Join(l.vendorDir, fileBundle)); err != nil {
		t.Fatal(err)
	}
	if err := l.vendor.write(l.vendorDir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over half a vendor: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(l.vendorDir, fileASKKey)); err != nil || string(after) != string(before) {
		t.Errorf("the key changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(l.vendorDir, fileBundle)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bundle came to be: %v", err)
	}
	if err := CreateVendor(t.TempDir(), "Rome"); err == nil {
		t.Error("a vendor for Rome")
	}
}

func TestGuestDirectory(t *testing.T) {
	l := newLab(t, Genoa)
	dir := filepath.Join(t.TempDir(), "guest")
	if err := CreateGuest(l.vendorDir, dir, l.launch); err != nil {
		t.Fatal(err)
	}
	if err := CreateGuest(l.vendorDir, dir, l.launch); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second guest in the directory: %v", err)
	}
	good, err := os.ReadFile(filepath.Join(dir, fileLaunch))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"other platform":   {`"snp"`, `"tdx"`, "platform"},
		"unknown member":   {`"platform"`, `"x":1,"platform"`, "unknown field"},
		"short":            {`"measurement": "`, `"measurement": "","x":"`, "unknown field"},
		"bad hex":          {`"host_data": "`, `"host_data": "zz`, "host_data is not the hex of 32 bytes"},
		"other generation": {`"Genoa"`, `"Rome"`, "not one of"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, fileLaunch), []byte(strings.Replace(string(good), c.old, c.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenSimulator(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := OpenSimulator(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

// Who looks at a simulated certificate with any tool sees what it is.
func TestSimulatedCertificatesSaySo(t *testing.T) {
	l := newLab(t, Genoa)
	for _, c := range []*x509.Certificate{l.vendor.ark, l.vendor.ask} {
		if !strings.HasPrefix(c.Subject.SerialNumber, "simulated-") {
			t.Errorf("%s", c.Subject)
		}
	}
}
