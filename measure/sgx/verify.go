// Package sgx judges quotes of Intel SGX enclaves and simulates them.
//
// Package dcap judges the signature, the platform and its TCB; this package
// judges the enclave: its attributes and what its report is bound to.
package sgx

import (
	"context"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// CheckAttributes is a check of this platform beside those that all platforms
// have: whether the enclave is of a kind that can keep a secret.
const CheckAttributes measure.CheckName = "attributes"

// VerifierConfig says what a [Verifier] trusts. The zero value trusts Intel's
// root and has no collateral, so it refuses everything.
type VerifierConfig struct {
	// Config is what quotes of all TEEs need; its TEE is set here.
	dcap.Config
	// UnsafeDebug accepts enclaves whose host may read and write their memory.
	UnsafeDebug bool
}

// Verifier judges SGX evidence. It is safe for concurrent use.
type Verifier struct {
	judge *dcap.Judge
	debug bool
}

// NewVerifier checks the configuration as a whole.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	c.TEE = dcap.SGX
	j, err := dcap.NewJudge(c.Config)
	if err != nil {
		return nil, err
	}
	return &Verifier{judge: j, debug: c.UnsafeDebug}, nil
}

// Platform returns [measure.SGX].
func (v *Verifier) Platform() measure.Platform { return measure.SGX }

// Verify judges evidence as [measure.Verifier] demands. All checks are made
// whatever the others found. Evidence whose quote cannot be parsed gives a
// plain error; anything else gives a verdict.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: measure.SGX, Class: "cpu"}
	if err := ctx.Err(); err != nil {
		return verdict, err
	}
	if err := want.Validate(); err != nil {
		return verdict, err
	}
	e, err := ParseEvidence(ev)
	if err != nil {
		return verdict, err
	}
	q, r, err := parseQuote(e.Quote)
	if err != nil {
		return verdict, fmt.Errorf("SGX evidence: %w", err)
	}
	opinion := v.judge.Judge(ctx, q, nil)
	verdict.Root = opinion.Root
	verdict.Checks = slices.Concat(opinion.Checks, []measure.Check{
		v.checkAttributes(r.Attributes),
		measure.CheckReportData(r.ReportData, want.ReportData),
		measure.CheckInitDataField(r.ConfigID[:], want.InitData),
		measure.Check{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "SGX keeps no event log"},
	})
	verdict.Claims = opinion.Claims
	addClaims(verdict.Claims, q, r)
	return verdict, verdict.Err()
}

// checkAttributes refuses enclaves that others can look into, and those that
// never became enclaves.
func (v *Verifier) checkAttributes(a dcap.EnclaveAttributes) measure.Check {
	const debug = "this is a debug enclave: its host may read and write its memory"
	var t measure.Tally
	seen := fmt.Sprintf("%016x", a.Flags)
	if a.Flags&dcap.FlagInit == 0 {
		t.Find("the enclave was not initialised", "attributes.flags", seen)
	}
	if a.Debug() && !v.debug {
		t.Find(debug, "attributes.flags", seen, fmt.Sprintf("%016x", a.Flags&^dcap.FlagDebug))
	}
	c := t.Check(CheckAttributes)
	if a.Debug() && c.Outcome == measure.Passed {
		c.Outcome, c.Reason = measure.Waived, debug+"; waived by configuration (UnsafeDebug)"
	}
	return c
}
