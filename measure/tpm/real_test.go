package tpm

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// A quote of a real TPM stack, software by the look of it. Its key is
// self-declared, so a verifier that was told nothing refuses it, and for no
// other reason.
func TestRealEvidence(t *testing.T) {
	ev := measure.Evidence{Platform: measure.TPM, Data: evidencetest.File(t, "tpm", "tpm_evidence.json")}
	e, err := ParseEvidence(ev)
	if err != nil {
		t.Fatal(err)
	}
	want := measure.Expected{ReportData: measure.BoundTo(e.Quote.ExtraData), InitData: measure.NotPresented()}
	judge := func(c VerifierConfig, ev measure.Evidence) (measure.Verdict, error) {
		v, err := NewVerifier(c)
		if err != nil {
			t.Fatal(err)
		}
		return v.Verify(context.Background(), ev, want)
	}

	got, err := judge(VerifierConfig{}, ev)
	verr, ok := errors.AsType[*measure.VerificationError](err)
	if !ok || len(verr.Failed) != 1 || !verr.UntrustedRoot() {
		t.Errorf("by default: %v", err)
	}
	enrolled := VerifierConfig{Enrolled: []EnrolledKeys{{"lab", e.AKPublic}}}
	if got, err = judge(enrolled, ev); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"ak_public": base64.StdEncoding.EncodeToString(e.AKPublic), "pcr00": strings.Repeat("00", 32), "pcr17": strings.Repeat("ff", 32),
		"init_data": strings.Repeat("00", 32), "pcr_selection": "SHA-256:0-23", "ak_trust": "enrolled", "tpm_firmware_version": "2019102300163636",
	} {
		if got.Claims[name] != value {
			t.Errorf("%s is %v, want %v", name, got.Claims[name], value)
		}
	}

	// Whatever byte of what is signed, or of the signature, changes: refused.
	mutate := func(what string, n int, change func(*Evidence, int)) {
		for i := range n {
			m, err := ParseEvidence(ev)
			if err != nil {
				t.Fatal(err)
			}
			change(m, i)
			sent, err := m.Wire()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := judge(enrolled, sent); err == nil {
				t.Errorf("byte %d of the %s does not matter", i, what)
			}
		}
	}
	mutate("quote", len(e.Message), func(m *Evidence, i int) { m.Message[i] ^= 0x20 })
	mutate("signature", len(e.Signature.RSA), func(m *Evidence, i int) { m.Signature.RSA[i] ^= 0x20 })
	mutate("PCRs", 24*32, func(m *Evidence, i int) { m.PCRs[i/32][i%32] ^= 0x20 })
	mutate("key", len(e.AKPublic), func(m *Evidence, i int) { m.AKPublic = bytes.Clone(m.AKPublic); m.AKPublic[i] ^= 0x20 })
}

// Quotes of Azure's vTPM. The second is about PCRs 0 to 7 and 14 only.
func TestRealAzureQuote(t *testing.T) {
	q, err := ParseQuote(evidencetest.File(t, "azure", "snp", "tpm-quote.msg"))
	if err != nil {
		t.Fatal(err)
	}
	if text := describeSelection(q.Selection); text != "SHA-256:0-7,14" || string(q.ExtraData) != "challenge" {
		t.Errorf("PCRs %s, bound to %q", text, q.ExtraData)
	}
	if check := CheckValues(q, eventlog.SHA256, make([][]byte, 9)); check.Outcome != measure.Failed {
		t.Errorf("%+v", check)
	}
}
