package sample

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Verifier believes sample evidence.
type Verifier struct{ kind }

// UnsafeVerifier returns a verifier of measure.Sample or measure.SampleDevice:
// whoever registers it lets anyone attest.
func UnsafeVerifier(p measure.Platform) (Verifier, error) {
	k, err := kindOf(p)
	return Verifier{k}, err
}

// Platform implements [measure.Verifier].
func (v Verifier) Platform() measure.Platform { return v.platform }

// Verify implements [measure.Verifier]. The one thing that is checked is the
// digest, byte for byte; init-data is bound to nothing.
func (v Verifier) Verify(_ context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	if err := want.Validate(); err != nil {
		return measure.Verdict{}, err
	}
	if ev.Platform != v.platform {
		return measure.Verdict{}, fmt.Errorf("%w: it is of platform %s", ErrEvidence, ev.Platform)
	}
	e, err := parse(ev.Data)
	if err != nil {
		return measure.Verdict{}, err
	}
	const nothing = "sample evidence proves nothing"
	out := measure.Verdict{
		Platform: v.platform, Class: v.class, Root: measure.Root{Name: RootName, Simulated: true},
		Checks: []measure.Check{
			{Name: measure.CheckSignature, Outcome: measure.Waived, Reason: nothing},
			{Name: measure.CheckChain, Outcome: measure.Waived, Reason: nothing},
			{Name: measure.CheckRevocation, Outcome: measure.NotApplicable},
			{Name: measure.CheckTCB, Outcome: measure.Waived, Reason: nothing},
			checkBinding(e, want.ReportData),
			checkInitData(want.InitData),
		},
		Claims: v.claims(e, want.InitData),
	}
	return out, out.Err()
}

func checkBinding(e evidence, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckBinding, Outcome: measure.Waived, Reason: why}
	}
	digest, ok := want.Value()
	wanted := base64.StdEncoding.EncodeToString(digest)
	if !ok || len(digest) == 0 || wanted != e.ReportData {
		return measure.Check{
			Name: measure.CheckBinding, Outcome: measure.Failed, Reason: "the evidence is not bound to this challenge and key",
			Findings: []measure.Finding{{Field: "report_data", Seen: e.ReportData, Wanted: []string{wanted}}},
		}
	}
	return measure.Check{Name: measure.CheckBinding, Outcome: measure.Passed}
}

func checkInitData(want measure.Binding) measure.Check {
	if _, ok := want.Value(); ok {
		return measure.Check{Name: measure.CheckInitData, Outcome: measure.Waived, Reason: "sample evidence holds no init-data"}
	}
	return measure.Check{Name: measure.CheckInitData, Outcome: measure.NotApplicable}
}

// claims are those of kbs-protocol 16.1. What stands for the launch of a CPU is
// the same for everyone.
func (v Verifier) claims(e evidence, initData measure.Binding) measure.Claims {
	c := measure.Claims{"svn": e.SVN, "report_data": e.ReportData}
	if v.platform != measure.Sample {
		return c
	}
	c["launch_digest"] = "abcde"
	c["platform_version"] = measure.Claims{"major": json.Number("1"), "minor": json.Number("4")}
	c["debug"] = false
	if digest, ok := initData.Value(); ok {
		c["init_data"] = base64.StdEncoding.EncodeToString(digest)
	}
	return c
}
