package tdx

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// CheckAttributes is a check of this platform beside those that all platforms
// have: whether the TD is of a kind that can keep a secret.
const CheckAttributes measure.CheckName = "attributes"

// VerifierConfig says what a [Verifier] trusts. The zero value trusts Intel's
// root and has no collateral, so it refuses everything.
type VerifierConfig struct {
	// Config is what quotes of all TEEs need; its TEE is set here.
	dcap.Config
	// UnsafeDebug accepts TDs whose host may read and write their memory.
	UnsafeDebug bool
	// UnsafeMigratable accepts TDs that a migration TD may move to another
	// platform, which need not be as good as the one that was judged.
	UnsafeMigratable bool
}

// Verifier judges TDX evidence. It is safe for concurrent use.
type Verifier struct {
	judge             *dcap.Judge
	debug, migratable bool
}

// NewVerifier checks the configuration as a whole.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	c.TEE = dcap.TDX
	j, err := dcap.NewJudge(c.Config)
	if err != nil {
		return nil, err
	}
	return &Verifier{judge: j, debug: c.UnsafeDebug, migratable: c.UnsafeMigratable}, nil
}

// Platform returns [measure.TDX].
func (v *Verifier) Platform() measure.Platform { return measure.TDX }

// Verify judges evidence as [measure.Verifier] demands. All checks are made
// whatever the others found. Evidence whose quote cannot be parsed gives a
// plain error; anything else gives a verdict.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: measure.TDX, Class: "cpu"}
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
	return v.judgeEvidence(ctx, e, want)
}

// VerifyQuote is [Verifier.Verify] for a quote that comes without its wire form
// and without a log, within the evidence of another platform.
func (v *Verifier) VerifyQuote(ctx context.Context, quote []byte, want measure.Expected) (measure.Verdict, error) {
	if err := want.Validate(); err != nil {
		return measure.Verdict{Platform: measure.TDX, Class: "cpu"}, err
	}
	return v.judgeEvidence(ctx, &Evidence{Quote: quote}, want)
}

func (v *Verifier) judgeEvidence(ctx context.Context, e *Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: measure.TDX, Class: "cpu"}
	q, r, err := parseQuote(e.Quote)
	if err != nil {
		return verdict, fmt.Errorf("TDX evidence: %w", err)
	}
	opinion := v.judge.Judge(ctx, q, r.module())
	log, logCheck := checkEventLog(e.EventLog, r)
	verdict.Root = opinion.Root
	verdict.Checks = slices.Concat(opinion.Checks, []measure.Check{
		v.checkAttributes(r),
		measure.CheckReportData(r.ReportData, want.ReportData),
		measure.CheckInitDataField(r.MRConfigID[:], want.InitData),
		logCheck,
	})
	verdict.Claims = opinion.Claims
	addClaims(verdict.Claims, q, r)
	err = verdict.Err()
	if log != nil && (err == nil || log.Size <= eventlog.MaxUnproven) {
		verdict.Claims[eventlog.ClaimEvents] = log.ClaimsIn(eventlog.SHA384)
	}
	return verdict, err
}

func parseQuote(raw []byte) (*dcap.Quote, *Report, error) {
	q, err := dcap.ParseQuote(raw)
	if err != nil {
		return nil, nil, err
	}
	if q.BodyType == dcap.BodySGX {
		return nil, nil, errors.New("this is the quote of an SGX enclave")
	}
	r, err := ParseReport(q.Body)
	return q, r, err
}
