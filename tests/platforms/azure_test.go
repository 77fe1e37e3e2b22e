package platforms

import (
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

var boot = tpm.Launch{Image: []byte("agent"), CommandLine: "quiet"}

// good are the claims of a guest's verdict, which its owner makes known.
func (s *stage) good(guest measure.Attester, hardware measure.Verifier) measure.Claims {
	s.Helper()
	v, err := azure.NewVerifier(hardware)
	s.must(err)
	digest := make([]byte, 48)
	ev, err := measure.EvidenceOver(s.Context(), guest, digest)
	s.must(err)
	got, err := v.Verify(s.Context(), ev, measure.Expected{ReportData: measure.BoundTo(digest), InitData: measure.NotPresented()})
	s.must(err)
	return got.Claims
}

func (s *stage) guest(p measure.Platform, vendor string) *azure.Simulator {
	s.Helper()
	s.must(azure.CreateGuest(p, vendor, s.Path("guest"), boot))
	guest, err := azure.OpenSimulator(s.Path("guest"))
	s.must(err)
	return guest
}

// released demands that the guest gets the secret, and does not get it any more
// after it ran something else.
func (s *stage) released(guest *azure.Simulator) {
	s.Helper()
	pcrs, err := tpm.Predict(boot)
	s.must(err)
	if got, err := s.fetch(guest); err != nil || got != value {
		s.Fatalf("%q, %v", got, err)
	}
	// The event log no longer explains PCR 11, so the verifier itself refuses.
	s.must(guest.Device().Extend(tpm.Bank, tpm.KernelPCR, eventlog.SHA256.Sum([]byte("something else"))))
	_, err = s.fetch(guest)
	s.refused(err, "pcr11", hex.EncodeToString(pcrs[tpm.KernelPCR]))
}

func TestAzureOnSNP(t *testing.T) {
	var guest *azure.Simulator
	s := newStage(t, func(s *stage) string {
		s.must(snp.CreateVendor(s.Path("vendor"), "Milan"))
		guest = s.guest(measure.AzSNPvTPM, s.Path("vendor"))
		return fmt.Sprintf("[verifier.az-snp-vtpm]\nenabled = true\ninsecure_simulated_roots = [{name = \"lab\", path = %q}]\n", s.Path("vendor", "root.pem"))
	})
	bundle := s.read(s.Path("vendor", "root.pem"))
	hardware, err := snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: "lab", Bundle: bundle}}})
	s.must(err)
	claims := s.good(guest, hardware)
	_, err = s.fetch(guest)
	s.refused(err, "simulated-root", "")

	s.acceptRoot("lab")
	values := map[string]any{"snp_pcr11": claims["tpm"].(measure.Claims)["pcr11"]}
	for name, claim := range map[string]string{
		"measurement": "measurement", "tcb_bootloader": "reported_tcb_bootloader", "tcb_microcode": "reported_tcb_microcode",
		"tcb_snp": "reported_tcb_snp", "tcb_tee": "reported_tcb_tee", "smt_enabled": "platform_smt_enabled", "tsme_enabled": "platform_tsme_enabled",
		"abi_major": "policy_abi_major", "abi_minor": "policy_abi_minor", "single_socket": "policy_single_socket", "smt_allowed": "policy_smt_allowed",
	} {
		values[name] = claims[claim]
	}
	s.know(values)
	s.released(guest)
}

func TestAzureOnTDX(t *testing.T) {
	var guest *azure.Simulator
	s := newStage(t, func(s *stage) string {
		s.must(dcap.CreateVendor(s.Path("vendor")))
		guest = s.guest(measure.AzTDXvTPM, s.Path("vendor"))
		_, err := s.World.Run(s.Context(), "measure", "sim", "tdx", "collateral", "--vendor", s.Path("vendor"), "--out", s.Path("collateral"))
		s.must(err)
		return fmt.Sprintf("[collateral]\nenabled = true\nfiles = [%q]\n[verifier.az-tdx-vtpm]\nenabled = true\ninsecure_simulated_roots = [{name = \"lab\", path = %q}]\n",
			s.Path("collateral"), s.Path("vendor", "root.pem"))
	})
	vendor, err := dcap.OpenVendor(s.Path("vendor"))
	s.must(err)
	hardware, err := tdx.NewVerifier(tdx.VerifierConfig{Config: dcap.Config{
		UnsafeSimulatedRoots: []dcap.SimulatedRoot{{Name: "lab", Bundle: vendor.Bundle()}}, Source: dcap.Service{Vendor: vendor, Now: time.Now},
	}})
	s.must(err)
	claims := s.good(guest, hardware)
	_, err = s.fetch(guest)
	s.refused(err, "simulated-root", "")

	s.acceptRoot("lab")
	body := claims["quote"].(measure.Claims)["body"].(measure.Claims)
	s.know(map[string]any{"tdx_pcr11": claims["tpm"].(measure.Claims)["pcr11"], "mr_td": body["mr_td"], "xfam": body["xfam"]})
	s.released(guest)
}
