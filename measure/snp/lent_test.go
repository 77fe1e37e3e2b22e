package snp

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// lend gives the lab's guest a key that is lent to a cloud.
func (l *lab) lend(csp string) {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), "lent")
	if err := CreateGuestWith(l.vendorDir, dir, l.launch, GuestOptions{Key: VLEK, CSP: csp}); err != nil {
		l.t.Fatal(err)
	}
	var err error
	if l.sim, err = OpenSimulator(dir); err != nil {
		l.t.Fatal(err)
	}
}

func TestLentKeyPasses(t *testing.T) {
	for _, g := range Generations() {
		t.Run(string(g), func(t *testing.T) {
			l := newLab(t, g)
			l.lend("a cloud")
			v := l.verifier()
			for range 2 { // the second time the chain is known
				got, err := l.verify(v, l.evidence(), l.expected())
				if err != nil {
					t.Fatal(err)
				}
				if got.Claims["signing_key"] != "VLEK" || got.Claims["csp_id"] != "a cloud" || !got.Root.Simulated {
					t.Errorf("%v %v %+v", got.Claims["signing_key"], got.Claims["csp_id"], got.Root)
				}
			}
		})
	}
}

// A key that was lent belongs to no chip, but to a TCB and a cloud.
func TestLentKeyRefused(t *testing.T) {
	l := newLab(t, Genoa)
	own := l.evidence()
	l.lend("a cloud")
	_, _, svns := Genoa.processor()
	t.Run("as a chip's", func(t *testing.T) {
		e := l.evidence(func(r *Report) { r.KeyInfo = 0 })
		e.Certificates[0].Type = CertVCEK
		_, err := l.verify(l.verifier(), e, l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{
			measure.CheckSignature: "it is one of a VLEK", measure.CheckChain: "VLEK", measure.CheckTCB: "VLEK", measure.CheckRevocation: "without",
		})
	})
	t.Run("a chip's as lent", func(t *testing.T) {
		e := own
		e.Report.KeyInfo = uint32(VLEK) << 2
		e.Certificates[0].Type = CertVLEK
		_, err := l.verify(l.verifier(), e, l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{
			measure.CheckSignature: "it is one of a VCEK", measure.CheckChain: "VCEK", measure.CheckTCB: "VCEK", measure.CheckRevocation: "without",
		})
	})
	t.Run("for another TCB", func(t *testing.T) {
		_, err := l.verify(l.verifier(), l.evidence(func(r *Report) { r.ReportedTCB[7]-- }), l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "the VLEK certificate is for another TCB"})
	})
	t.Run("of a vendor that lends none", func(t *testing.T) {
		poor := *l.vendor
		poor.asvk = nil
		v := l.verifier(func(c *VerifierConfig) { c.UnsafeSimulatedRoots[0].Bundle = poor.bundle() })
		_, err := l.verify(v, l.evidence(), l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "not signed by the ASVK of lab", measure.CheckRevocation: "without"})
	})
	t.Run("signed by the key for chips", func(t *testing.T) {
		mixed := *l.vendor
		mixed.asvk = l.vendor.ask
		key, cert, err := mixed.issueVLEK("a cloud", svns, l.now)
		if err != nil {
			t.Fatal(err)
		}
		saved := *l.sim
		l.sim.key, l.sim.chain[0].Data = key, cert.Raw
		_, err = l.verify(l.verifier(), l.evidence(), l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "not signed by the ASVK", measure.CheckRevocation: "without"})
		*l.sim = saved
	})
	t.Run("expired", func(t *testing.T) {
		v := l.verifier(func(c *VerifierConfig) { c.Now = func() time.Time { return l.now.Add(vlekLife + time.Hour) } })
		l.lend("a cloud")
		_, err := l.verify(v, l.evidence(), l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "SEV-VLEK is not valid"})
	})
}

// The list tells which of the signing keys is taken back: chips' keys live on
// when the key for clouds is revoked, and the other way round.
func TestRevokedSigners(t *testing.T) {
	for _, revoked := range []SigningKey{VCEK, VLEK} {
		t.Run(revoked.String(), func(t *testing.T) {
			l := newLab(t, Milan)
			if err := RevokeSigner(l.vendorDir, revoked); err != nil {
				t.Fatal(err)
			}
			v, err := openVendor(l.vendorDir)
			if err != nil {
				t.Fatal(err)
			}
			l.vendor.crl = v.crl
			own := l.evidence()
			l.lend("a cloud")
			for kind, e := range map[SigningKey]*Evidence{VCEK: own, VLEK: l.evidence()} {
				_, err := l.verify(l.verifier(func(c *VerifierConfig) { c.UnsafeNoRevocation = true }), e, l.expected())
				if kind != revoked {
					if err != nil {
						t.Errorf("%s: %v", kind, err)
					}
					continue
				}
				verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckRevocation: "is revoked since"})
			}
		})
	}
	l := newLab(t, Milan)
	if err := RevokeSigner(l.vendorDir, Unsigned); err == nil {
		t.Error("a key that is none was revoked")
	}
}

// Chips that the simulator makes with other TCBs, report versions and dates.
func TestGuestOptions(t *testing.T) {
	l := newLab(t, Turin)
	fmc := uint8(9)
	dir := filepath.Join(t.TempDir(), "old")
	o := GuestOptions{
		TCB: &SVNs{FMC: &fmc, Bootloader: 3, TEE: 2, SNP: 5, Microcode: 80}, ReportVersion: 5,
		Issued: l.now.Add(-vcekLife - 2*time.Hour), IDKeyDigest: [48]byte{1}, AuthorKeyDigest: [48]byte{2},
	}
	if err := CreateGuestWith(l.vendorDir, dir, l.launch, o); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.sim, err = OpenSimulator(dir); err != nil {
		t.Fatal(err)
	}
	got, err := l.verify(l.verifier(), l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "SEV-VCEK is not valid"})
	for name, want := range map[string]any{
		"reported_tcb_fmc": number(uint8(9)), "reported_tcb_snp": number(uint8(5)), "report_version": number(uint32(5)),
		"author_key_enabled": true, "id_key_digest": "01" + zeros(47), "author_key_digest": "02" + zeros(47),
	} {
		if got.Claims[name] != want {
			t.Errorf("%s is %v, want %v", name, got.Claims[name], want)
		}
	}
	if err := CreateGuestWith(l.vendorDir, t.TempDir(), l.launch, GuestOptions{Key: Unsigned}); err == nil {
		t.Error("a guest without a key")
	}
}

func zeros(n int) string { return strings.Repeat("00", n) }
