package azure

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/known"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// CheckRuntimeData is a check of these platforms beside those that all have:
// whether the hardware report vouches for the runtime data, and so for the AK.
const CheckRuntimeData measure.CheckName = "runtime_data"

// Verifier judges evidence of one of Azure's platforms. What it trusts is what
// its hardware verifier trusts.
type Verifier struct {
	platform measure.Platform
	hardware measure.Verifier
	machines *known.Set[lastingText, *lasting] // whose evidence was good
}

// NewVerifier returns the verifier of the platform that runs on the hardware
// of the given verifier: of az-snp-vtpm for one of SNP, of az-tdx-vtpm for one
// of TDX. It judges the hardware's report with all its own checks.
func NewVerifier(hardware measure.Verifier) (*Verifier, error) {
	v := &Verifier{hardware: hardware, machines: known.New[lastingText, *lasting](known.MaxMachines)}
	switch p := hardware.Platform(); p {
	case measure.SNP:
		v.platform = measure.AzSNPvTPM
	case measure.TDX:
		v.platform = measure.AzTDXvTPM
	default:
		return nil, fmt.Errorf("azure: no platform runs on %s", p)
	}
	return v, nil
}

// Platform returns [measure.AzSNPvTPM] or [measure.AzTDXvTPM].
func (v *Verifier) Platform() measure.Platform { return v.platform }

// Verify judges evidence as [measure.Verifier] demands. All checks are made
// whatever the others found. Evidence that cannot be parsed gives a plain
// error.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: v.platform, Class: "cpu"}
	if err := ctx.Err(); err != nil {
		return verdict, err
	}
	if err := want.Validate(); err != nil {
		return verdict, err
	}
	if ev.Platform != v.platform {
		return verdict, fmt.Errorf("evidence of platform %q given to the verifier of %s", ev.Platform, v.platform)
	}
	e, l, remembered, err := v.read(ev)
	if err != nil {
		return verdict, err
	}
	runtime, registers := l.runtime, l.registers
	below, err := v.judgeHardware(ctx, e)
	if err != nil {
		return verdict, err
	}
	verdict.Root = below.Root
	verdict.Checks = append(hardwareChecks(below, e.checkSignature(l)),
		e.checkRuntimeData(below),
		tpm.CheckValues(e.Quote, eventlog.SHA256, e.PCRs),
		e.checkBinding(runtime, want.ReportData),
		tpm.CheckInitData(e.PCRs, want.InitData),
		registers.Check,
	)
	err = verdict.Err()
	verdict.Claims = e.claims(below.Claims, runtime, registers, err == nil)
	if err == nil && !remembered {
		v.remember(l)
	}
	return verdict, err
}

// judgeHardware lets the hardware's verifier judge the report within the
// evidence. Its binding is the runtime data. Checks that fail are in the
// verdict; the error is about evidence that has none.
func (v *Verifier) judgeHardware(ctx context.Context, e *Evidence) (measure.Verdict, error) {
	want := measure.Expected{
		ReportData: measure.BoundTo(e.HCL.Binding()),
		InitData:   measure.UnsafeUnbound("the init-data of the guest is in a PCR"),
	}
	var verdict measure.Verdict
	var err error
	if direct, ok := v.hardware.(quoteVerifier); ok && v.platform == measure.AzTDXvTPM {
		verdict, err = direct.VerifyQuote(ctx, e.TDQuote, want)
	} else {
		var inner measure.Evidence
		if inner, err = e.Hardware(); err == nil {
			verdict, err = v.hardware.Verify(ctx, inner, want)
		}
	}
	if _, judged := errors.AsType[*measure.VerificationError](err); err != nil && !judged {
		return measure.Verdict{}, fmt.Errorf("%s evidence: %w", v.platform, err)
	}
	return verdict, nil
}

// quoteVerifier is a verifier of TDX that takes a quote as it is, which saves
// writing its wire form and reading it again.
type quoteVerifier interface {
	VerifyQuote(ctx context.Context, quote []byte, want measure.Expected) (measure.Verdict, error)
}

// Hardware returns the hardware's report in the wire form of its own platform.
func (e *Evidence) Hardware() (measure.Evidence, error) {
	if e.Platform == measure.AzTDXvTPM {
		data, err := json.Marshal(map[string]any{"quote": base64.StdEncoding.EncodeToString(e.TDQuote), "cc_eventlog": nil})
		return measure.Evidence{Platform: measure.TDX, Data: data}, err
	}
	r, err := snp.ParseReport(e.HCL.Hardware[:])
	if err != nil {
		return measure.Evidence{}, err
	}
	inner := snp.Evidence{Report: r, Certificates: []snp.Certificate{{Type: snp.CertVCEK, Data: e.VCEK}}}
	return inner.Wire()
}

// answeredByTPM are the checks that are about the guest.
var answeredByTPM = []measure.CheckName{measure.CheckBinding, measure.CheckInitData, measure.CheckEventLog}

// hardwareChecks takes over the hardware's checks, all but those that the vTPM
// answers. The signature of the evidence is good only if both signatures are.
func hardwareChecks(below measure.Verdict, quote measure.Check) []measure.Check {
	var out []measure.Check
	for _, c := range below.Checks {
		if slices.Contains(answeredByTPM, c.Name) {
			continue
		}
		if c.Name == measure.CheckSignature {
			c = both(c, quote)
		}
		out = append(out, c)
	}
	if below.Check(measure.CheckSignature).Reason == "not made" {
		out = append(out, measure.Check{Name: measure.CheckSignature, Outcome: measure.Failed, Reason: "the hardware's signature was not checked"})
	}
	return out
}

// both is the check of two things under one name. It passes if both do.
func both(a, b measure.Check) measure.Check {
	if b.Outcome == measure.Passed {
		return a
	}
	if a.Outcome == measure.Failed {
		b.Reason = a.Reason + "; " + b.Reason
	}
	b.Findings = append(a.Findings[:len(a.Findings):len(a.Findings)], b.Findings...)
	return b
}

// checkSignature checks the vTPM's signature, RSASSA with SHA-256.
func (e *Evidence) checkSignature(l *lasting) measure.Check {
	var t measure.Tally
	s := tpm.Signature{Scheme: tpm.RSASSA, Hash: eventlog.SHA256, RSA: e.Signature}
	if err := s.VerifyPrepared(l.runtime.AK, l.prepared, e.Message); err != nil {
		t.Fail(fmt.Errorf("the AK in the HCL report did not sign the vTPM's quote: %w", err))
	}
	return t.Check(measure.CheckSignature)
}

// checkRuntimeData is what the hardware's verifier found when it compared its
// report data with the digest of the runtime data: all 64 bytes of it, the
// digest and zeros.
func (e *Evidence) checkRuntimeData(below measure.Verdict) measure.Check {
	var t measure.Tally
	want := ReportSNP
	if e.Platform == measure.AzTDXvTPM {
		want = ReportTDX
	}
	if e.HCL.Type != want {
		t.Find("the HCL report is of another hardware", "hcl_report_type", e.HCL.Type.String(), want.String())
	}
	if c := below.Check(measure.CheckBinding); c.Outcome != measure.Passed {
		t.Find("the hardware report does not vouch for the AK", "hardware_report_data", findingSeen(c), hex.EncodeToString(e.HCL.Binding())+" and zeros")
	}
	return t.Check(CheckRuntimeData)
}

func findingSeen(c measure.Check) string {
	if len(c.Findings) == 0 {
		return c.Reason
	}
	return c.Findings[0].Seen
}

// checkBinding compares what the quote is bound to with the digest that was
// asked for, exactly. From version 2 on the guest binds the hardware report
// to it too, through the runtime data (kbs-protocol 16.5).
func (e *Evidence) checkBinding(r *RuntimeData, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckBinding, Outcome: measure.Waived, Reason: why}
	}
	var t measure.Tally
	digest, ok := want.Value()
	if !ok || len(digest) == 0 {
		t.Fail(errors.New("nothing was given that the quote could be bound to"))
		return t.Check(measure.CheckBinding)
	}
	if !bytes.Equal(e.Quote.ExtraData, digest) {
		t.Find("the quote is not bound to this challenge and key", "report_data", hex.EncodeToString(e.Quote.ExtraData), hex.EncodeToString(digest))
	}
	if e.Version >= 2 && !bytes.HasPrefix(r.UserData, digest) {
		t.Find("the hardware report is not bound to this challenge and key", "hcl_user_data", hex.EncodeToString(r.UserData), hex.EncodeToString(digest))
	}
	return t.Check(measure.CheckBinding)
}
