package snp

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// realTime lies in the life of the real VCEK, 2023-01-24 to 2030-01-24.
var realTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func realEvidence(t *testing.T, certificate string) *Evidence {
	t.Helper()
	r, err := ParseReport(evidencetest.File(t, "snp", "test-report.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return &Evidence{Report: r, Certificates: []Certificate{{Type: CertVCEK, Data: evidencetest.File(t, "snp", certificate)}}}
}

func realVerifier(t *testing.T, c VerifierConfig) *Verifier {
	t.Helper()
	c.Now = func() time.Time { return realTime }
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A report of real hardware under AMD's own roots.
func TestRealReport(t *testing.T) {
	l := &lab{t: t}
	e := realEvidence(t, "test-vcek.der")
	want := measure.Expected{ReportData: measure.BoundTo(e.Report.ReportData[:]), InitData: measure.UnsafeUnbound("the report's init-data is not known")}
	if data := hex.EncodeToString(e.Report.ReportData[:4]); data != "ec6c52d7" {
		t.Errorf("report data starts with %s", data)
	}

	got, err := l.verify(realVerifier(t, VerifierConfig{UnsafeNoRevocation: true}), e, want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Root != (measure.Root{Name: "AMD Milan"}) {
		t.Errorf("root %+v", got.Root)
	}
	for _, name := range []measure.CheckName{measure.CheckSignature, measure.CheckChain, measure.CheckTCB, measure.CheckBinding} {
		if c := got.Check(name); c.Outcome != measure.Passed {
			t.Errorf("%s: %s", name, c.Reason)
		}
	}
	for name, text := range map[string]string{"measurement": "a1f39304", "chip_id": "c38427a3"} {
		if v, _ := got.Claims[name].(string); !strings.HasPrefix(v, text) {
			t.Errorf("%s is %s", name, v)
		}
	}
	if _, there := got.Claims[ClaimSimulatedRoot]; there {
		t.Error("real evidence claims a simulated root")
	}

	_, err = l.verify(realVerifier(t, VerifierConfig{}), e, want)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckRevocation: "no revocation list of AMD Milan"})
}

func TestRealReportChanged(t *testing.T) {
	l := &lab{t: t}
	e := realEvidence(t, "test-vcek.der")
	e.Report.Measurement[0] ^= 1
	_, err := l.verify(realVerifier(t, VerifierConfig{UnsafeNoRevocation: true}), e,
		measure.Expected{ReportData: measure.BoundTo(e.Report.ReportData[:]), InitData: measure.NotPresented()})
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "did not sign"})
}

func TestRealReportWithCertificatesOfOtherChips(t *testing.T) {
	l := &lab{t: t}
	for _, name := range []string{"test-vcek-invalid-legacy.der", "test-vcek-invalid-new.der"} {
		e := realEvidence(t, name)
		_, err := l.verify(realVerifier(t, VerifierConfig{UnsafeNoRevocation: true}), e,
			measure.Expected{ReportData: measure.BoundTo(e.Report.ReportData[:]), InitData: measure.NotPresented()})
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{
			measure.CheckSignature: "did not sign", measure.CheckChain: "not end in a trusted root",
			measure.CheckTCB: "for another chip", measure.CheckRevocation: "without a trusted root",
		})
		if !verificationError(t, err).UntrustedRoot() {
			t.Errorf("%s: UntrustedRoot does not say so", name)
		}
	}
}

// Every byte of the report is signed, is the signature, or must be zero.
func TestRealReportMutatedByteByByte(t *testing.T) {
	raw := evidencetest.File(t, "snp", "test-report.bin")
	v := realVerifier(t, VerifierConfig{UnsafeNoRevocation: true})
	key, err := parseLeaf(evidencetest.File(t, "snp", "test-vcek.der"))
	if err != nil {
		t.Fatal(err)
	}
	for at := range raw {
		bad := append([]byte(nil), raw...)
		bad[at] ^= 1 << (at % 8)
		r, err := ParseReport(bad)
		if err != nil {
			continue // not a report any more
		}
		if key.signed(bad, r, false) || key.signed(bad, r, true) {
			t.Fatalf("a report with byte %#x changed is signed", at)
		}
		if at%64 != 0 {
			continue // the other checks cost more
		}
		e := &Evidence{Report: r, Certificates: []Certificate{{Type: CertVCEK, Data: key.cert.Raw}}}
		_, err = (&lab{t: t}).verify(v, e, measure.Expected{ReportData: measure.BoundTo(r.ReportData[:]), InitData: measure.NotPresented()})
		if !verificationError(t, err).Has(measure.CheckSignature) {
			t.Fatalf("byte %#x: %v", at, err)
		}
	}
}
