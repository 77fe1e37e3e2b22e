package platforms

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/sgx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// intelStage starts a broker that knows a simulated Intel, and what that
// publishes about its platforms.
func intelStage(t *testing.T, tee dcap.TEE, say func(s *stage) dcap.Statement) *stage {
	t.Helper()
	return newStage(t, func(s *stage) string {
		s.must(dcap.CreateVendor(s.Path("intel")))
		v, err := dcap.OpenVendor(s.Path("intel"))
		s.must(err)
		var statement dcap.Statement
		if say != nil {
			statement = say(s)
		}
		published, err := v.Collateral(tee, time.Now(), statement)
		s.must(err, published.Save(s.Path("published")))
		return fmt.Sprintf(`
[collateral]
enabled = true
files = [%q]
[verifier.%s]
enabled = true
insecure_simulated_roots = [{name = "lab", path = %q}]
`, s.Path("published"), tee, s.Path("intel", "root.pem"))
	})
}

// td launches a simulated TD.
func (s *stage) td(name string, change func(*tdx.Launch)) (*tdx.Simulator, *tdx.Prediction) {
	s.Helper()
	l := tdx.Launch{Image: []byte("the agent"), CommandLine: "quiet", TDX15: true}
	if change != nil {
		change(&l)
	}
	p, err := tdx.Simulate(l)
	s.must(err, tdx.CreateGuest(s.Path("intel"), s.Path(name), l))
	guest, err := tdx.OpenSimulator(s.Path(name))
	s.must(err)
	return guest, p
}

// A TD gets the secret when it booted what was foreseen, on a platform that is
// up to date; and each thing that is wrong with it refuses it, with a ticket
// that tells the administrator what.
func TestAGuestWithTDX(t *testing.T) {
	var revoked *tdx.Simulator
	s := intelStage(t, dcap.TDX, func(s *stage) dcap.Statement {
		revoked, _ = s.td("revoked", nil)
		chip, err := dcap.OpenChip(dcap.TDX, s.Path("revoked"))
		s.must(err)
		return dcap.Statement{Revoked: []*x509.Certificate{chip.PCK()}}
	})
	guest, p := s.td("guest", nil)
	s.know(map[string]any{
		"mr_td": hex.EncodeToString(p.MRTD[:]), "rtmr_1": hex.EncodeToString(p.RTMR[1][:]), "rtmr_2": hex.EncodeToString(p.RTMR[2][:]),
		"xfam": "e702060000000000",
	})
	_, err := s.fetch(guest)
	s.refused(err, "simulated-root", "") // until the policies name it too
	s.acceptRoot("lab")
	if got, err := s.fetch(guest); err != nil || got != value {
		t.Fatalf("%q, %v", got, err)
	}
	// the agent as it is shipped, in the place of that guest
	s.must(os.WriteFile(s.Path("cmdline"), nil, 0o600))
	got, err := s.World.Run(s.Context(), "guest-agent", "resource", "kbs:///"+resource, "--kbs", s.Broker.URL, "--kbs-ca", s.Broker.CA,
		"--kernel-cmdline", s.Path("cmdline"), "--simulated-tdx", s.Path("guest"), "--runtime-log", s.Path("absent"))
	if err != nil || got != value {
		t.Fatalf("guest-agent: %q, %v", got, err)
	}
	old, _ := s.td("tdx10", func(l *tdx.Launch) { l.TDX15 = false })
	if got, err := s.fetch(old); err != nil || got != value {
		t.Fatalf("TDX 1.0: %q, %v", got, err)
	}

	for name, test := range map[string]struct {
		change        func(*tdx.Launch)
		claim, wanted string
	}{
		"debug":         {func(l *tdx.Launch) { l.Attributes = tdx.DefaultAttributes | tdx.AttrDebug }, "td_attributes", "0000000010000000"},
		"migratable":    {func(l *tdx.Launch) { l.Attributes = tdx.DefaultAttributes | tdx.AttrMigratable }, "td_attributes", "0000000010000000"},
		"other-cmdline": {func(l *tdx.Launch) { l.CommandLine = "init=/bin/sh" }, "rtmr_2", hex.EncodeToString(p.RTMR[2][:])},
		"other-image":   {func(l *tdx.Launch) { l.Image = []byte("another agent") }, "mr_td", hex.EncodeToString(p.MRTD[:])},
		"old-module":    {func(l *tdx.Launch) { l.Module = func(m *dcap.Module) { m.SVN[0] -= 2 } }, "tcb_status", "UpToDate"},
		"old-platform": {func(l *tdx.Launch) {
			l.Chip.PCK = func(p *dcap.PCK) { p.Components[0]-- }
		}, "tcb_status", "UpToDate"},
		"expired": {func(l *tdx.Launch) {
			l.Chip.Certificate = func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }
		}, "time", ""},
	} {
		other, _ := s.td(name, test.change)
		_, err := s.fetch(other)
		s.refused(err, test.claim, test.wanted)
	}
	_, err = s.fetch(revoked)
	s.refused(err, "revocation", "")
}

func TestAGuestWithSGX(t *testing.T) {
	s := intelStage(t, dcap.SGX, nil)
	l := sgx.Launch{Image: []byte("an enclave"), Signer: [32]byte{1}, ProdID: 1, SVN: 1}
	enclave := func(name string, l sgx.Launch) measure.Attester {
		s.must(sgx.CreateGuest(s.Path("intel"), s.Path(name), l))
		guest, err := sgx.OpenSimulator(s.Path(name))
		s.must(err)
		return guest
	}
	m, err := sgx.Predict(l)
	s.must(err)
	s.know(map[string]any{
		"sgx_mr_enclave": hex.EncodeToString(m[:]), "sgx_attributes_flags": "0500000000000000", "sgx_attributes_xfrm": "e700000000000000",
	})
	s.acceptRoot("lab")
	if got, err := s.fetch(enclave("good", l)); err != nil || got != value {
		t.Fatalf("%q, %v", got, err)
	}
	l.Debug = true
	_, err = s.fetch(enclave("debug", l))
	s.refused(err, "attributes.flags", "0000000000000005")
	l.Debug, l.Image = false, []byte("another enclave")
	_, err = s.fetch(enclave("other", l))
	s.refused(err, "mr_enclave", hex.EncodeToString(m[:]))
}
