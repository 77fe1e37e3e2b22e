package azure

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// realTime lies in the life of the real certificates.
var realTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func realVerifier(t *testing.T, p measure.Platform) *Verifier {
	t.Helper()
	now := func() time.Time { return realTime }
	var hardware measure.Verifier
	var err error
	if p == measure.AzSNPvTPM {
		hardware, err = snp.NewVerifier(snp.VerifierConfig{UnsafeNoRevocation: true, Now: now})
	} else {
		hardware, err = tdx.NewVerifier(tdx.VerifierConfig{Config: dcap.Config{UnsafeNoCollateral: true, Now: now}})
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(hardware)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var realExpected = measure.Expected{
	ReportData: measure.BoundTo([]byte("challenge")), InitData: measure.NotPresented(),
}

// claim finds a claim by its path.
func claim(c measure.Claims, path ...string) any {
	for _, name := range path[:len(path)-1] {
		c, _ = c[name].(measure.Claims)
	}
	return c[path[len(path)-1]]
}

// Evidence of real VMs.
func TestRealEvidence(t *testing.T) {
	for p, c := range map[measure.Platform]struct {
		file   string
		claims map[string][]string // value to path
		root   string
	}{
		measure.AzSNPvTPM: {"snp", map[string][]string{
			"e15c44796beabf46abcec7c57e590942041e47497e4ec27571c8b7664f48dced": {"tpm", "pcr00"},
			"6368616c6c656e6765":                   {"report_data"},
			"26F8BC30-774E-4290-8E7A-535F3B672AEE": {"vm_configuration", "vmUniqueId"},
			"false":                                {"policy_debug_allowed"},
		}, "AMD Milan"},
		measure.AzTDXvTPM: {"tdx", map[string][]string{
			"782b20b10f55cc46e2142cc2145d548698073e5beb82752c8d7f9279f0d8a273": {"tpm", "pcr00"},
			"6368616c6c656e6765": {"report_data"},
		}, "Intel SGX Root CA"},
	} {
		t.Run(string(p), func(t *testing.T) {
			ev := measure.Evidence{Platform: p, Data: evidencetest.File(t, "azure", c.file, "evidence-v1.json")}
			got, err := realVerifier(t, p).Verify(context.Background(), ev, realExpected)
			if err != nil {
				t.Fatal(err)
			}
			if got.Root != (measure.Root{Name: c.root}) {
				t.Errorf("root %+v", got.Root)
			}
			for _, name := range []measure.CheckName{measure.CheckSignature, measure.CheckChain, CheckRuntimeData, tpm.CheckPCRs, measure.CheckBinding} {
				if check := got.Check(name); check.Outcome != measure.Passed {
					t.Errorf("%s is %s: %s", name, check.Outcome, check.Reason)
				}
			}
			for want, path := range c.claims {
				if v := claim(got.Claims, path...); v != want {
					t.Errorf("%v is %v, want %s", path, v, want)
				}
			}
			checkFieldClaims(t, p, got.Claims)
		})
	}
}

// checkFieldClaims looks at those whose form differs from the hardware's own.
func checkFieldClaims(t *testing.T, p measure.Platform, c measure.Claims) {
	t.Helper()
	if p == measure.AzTDXvTPM {
		mrtd, _ := claim(c, "quote", "body", "mr_td").(string)
		rtmr, _ := claim(c, "quote", "body", "rtmr_0").(string)
		if mrtd[:8] != "024a32b0" || rtmr != hex.EncodeToString(make([]byte, 48)) {
			t.Errorf("mr_td %s, rtmr_0 %s", mrtd, rtmr)
		}
		return
	}
	text, _ := c["measurement"].(string)
	if m, err := base64.StdEncoding.DecodeString(text); err != nil || len(m) != 48 || hex.EncodeToString(m[:4]) != "6a063be9" {
		t.Errorf("measurement %q", text)
	}
	for _, name := range []string{"reported_tcb_snp", "policy_abi_major", "platform_smt_enabled"} {
		if _, ok := c[name].(string); !ok {
			t.Errorf("%s is a %T", name, c[name])
		}
	}
}

// The pieces of another VM, with a report of version 2 and a quote about a few
// PCRs only, which is why no verifier may accept them as a whole.
func TestRealPieces(t *testing.T) {
	for _, platform := range []string{"snp", "tdx"} {
		raw := evidencetest.File(t, "azure", platform, "hcl-report.bin")
		h, err := ParseHCL(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(h.Marshal(), raw) {
			t.Errorf("%s: another report is written", platform)
		}
		r, err := ParseRuntimeData(h.RuntimeData)
		if err != nil {
			t.Fatal(err)
		}
		if platform == "tdx" {
			if data := h.Hardware[128:192]; !bytes.Equal(data[:32], h.Binding()) {
				t.Errorf("the TDREPORT is bound to %x", data)
			}
			continue
		}
		if claim(r.Configuration, "vmUniqueId") != "911B0EF8-9DBA-48B0-B275-4E4DF2D39252" {
			t.Errorf("VM %v", r.Configuration)
		}
		report, err := snp.ParseReport(h.Hardware[:])
		if err != nil || hex.EncodeToString(report.Measurement[:4]) != "9ac48fca" || !bytes.Equal(report.ReportData[:32], h.Binding()) {
			t.Errorf("%v, measurement %x, bound to %x", err, report.Measurement, report.ReportData)
		}
		s := tpm.Signature{Scheme: tpm.RSASSA, Hash: eventlog.SHA256, RSA: evidencetest.File(t, "azure", "snp", "tpm-quote.sig")}
		if err := s.Verify(r.AK, evidencetest.File(t, "azure", "snp", "tpm-quote.msg")); err != nil {
			t.Logf("the quote is of another VM's AK: %v", err)
		}
	}
}

// Whatever byte of real evidence changes that is signed or a signature, it is
// refused. The rest is listed.
func TestRealMutations(t *testing.T) {
	for p, file := range map[measure.Platform]string{measure.AzSNPvTPM: "snp", measure.AzTDXvTPM: "tdx"} {
		ev := measure.Evidence{Platform: p, Data: evidencetest.File(t, "azure", file, "evidence-v1.json")}
		v := realVerifier(t, p)
		refused := func(what string, i int, change func(*Evidence)) {
			t.Helper()
			e, err := ParseEvidence(ev)
			if err != nil {
				t.Fatal(err)
			}
			change(e)
			sent, err := e.Wire()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(context.Background(), sent, realExpected); err == nil {
				t.Errorf("%s: byte %d of the %s does not matter", p, i, what)
			}
		}
		e, err := ParseEvidence(ev)
		if err != nil {
			t.Fatal(err)
		}
		for i := range e.Message {
			refused("quote", i, func(e *Evidence) { e.Message[i] ^= 0x20 })
		}
		for i := range e.Signature {
			refused("signature", i, func(e *Evidence) { e.Signature[i] ^= 0x20 })
		}
		for i := 0; i < 24*32; i += 7 {
			refused("PCRs", i, func(e *Evidence) { e.PCRs[i/32][i%32] ^= 0x20 })
		}
		for i := 0; i < len(e.HCL.RuntimeData); i += 5 {
			refused("runtime data", i, func(e *Evidence) { e.HCL.RuntimeData[i] ^= 0x20 })
		}
		if p == measure.AzSNPvTPM {
			for i := 0; i < snp.SignedSize; i += 7 {
				refused("report", i, func(e *Evidence) { e.HCL.Hardware[i] ^= 0x20 })
			}
			for i := 0; i < len(e.VCEK); i += 17 {
				refused("VCEK", i, func(e *Evidence) { e.VCEK[i] ^= 0x20 })
			}
			continue
		}
		// Header and body, the signature, the key that made it, and the report of
		// the quoting enclave that vouches for that key.
		const signedQuote = 48 + 584 + 4 + 64 + 64 + 6 + 384 + 64
		for i := 0; i < signedQuote; i += 7 {
			refused("TD quote", i, func(e *Evidence) { e.TDQuote[i] ^= 0x20 })
		}
	}
}

// Without collateral and without a waiver, real evidence is refused for that.
func TestRealEvidenceNeedsCollateral(t *testing.T) {
	hardware, err := snp.NewVerifier(snp.VerifierConfig{Now: func() time.Time { return realTime }})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(hardware)
	if err != nil {
		t.Fatal(err)
	}
	ev := measure.Evidence{Platform: measure.AzSNPvTPM, Data: evidencetest.File(t, "azure", "snp", "evidence-v1.json")}
	_, err = v.Verify(context.Background(), ev, realExpected)
	if verr, ok := errors.AsType[*measure.VerificationError](err); !ok || len(verr.Failed) != 1 || !verr.Has(measure.CheckRevocation) {
		t.Errorf("%v", err)
	}
}
