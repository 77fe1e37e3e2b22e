package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// claimSimulatedRoot is the claim that policies read (see measure/snp).
const claimSimulatedRoot = "simulated_root"

// judgement is what the broker thinks of evidence that verified.
type judgement struct {
	submod  token.Submod
	policy  string // the version that judged
	verdict measure.Verdict
}

// judge goes through the answer in the order of the specification: freshness,
// binding, hardware, policy. Every refusal is a *fault.Fault.
func (s *Service) judge(ctx context.Context, c challenge.Challenge, att api.Attestation) (judgement, error) {
	if !sameNonce(att.RuntimeData.Nonce, c.Nonce) {
		return judgement{}, fault.New(fault.NonceMismatch, &nonceError{seen: clip(att.RuntimeData.Nonce, 128), wanted: c.Nonce})
	}
	if att.TEEEvidence.AdditionalEvidence != "" {
		return judgement{}, fault.Newf(fault.PlatformDisabled, "no verifier for additional devices is enabled")
	}
	doc, want, err := expected(att)
	if err != nil {
		return judgement{}, err
	}
	verifier, ok := s.cfg.Registry.Verifier(measure.Platform(c.Platform))
	if !ok { // it was there when the handshake was opened
		return judgement{}, fault.Newf(fault.PlatformDisabled, "platform %s is not enabled", c.Platform)
	}
	ev := measure.Evidence{Platform: measure.Platform(c.Platform), Data: att.TEEEvidence.PrimaryEvidence}
	stepped, done := observe.Step(ctx, observe.StepEvidence)
	verdict, err := verifier.Verify(stepped, ev, want)
	if err == nil {
		err = verdict.Err() // a verifier that forgets to say no must not mean yes
	}
	if err != nil {
		err = verificationFault(err)
	}
	done(err)
	if err != nil {
		return judgement{}, err
	}
	return s.appraise(ctx, att, doc, verdict)
}

// expected says what the evidence must be bound to.
func expected(att api.Attestation) (*initdata.Document, measure.Expected, error) {
	var want measure.Expected
	digest, err := rcar.PrimaryDigest(rcar.DefaultHash, att.RuntimeData, att.TEEEvidence.AdditionalEvidence)
	if err != nil {
		return nil, want, fault.New(fault.InvalidRequest, err)
	}
	want.ReportData = measure.BoundTo(digest)
	if att.InitData == nil {
		want.InitData = measure.NotPresented()
		return nil, want, nil
	}
	if att.InitData.Format != "toml" {
		return nil, want, fault.Newf(fault.InvalidRequest, "init-data format %q is not toml", clip(att.InitData.Format, 32))
	}
	doc, err := initdata.Parse([]byte(att.InitData.Body))
	if err != nil {
		return nil, want, fault.New(fault.InvalidRequest, err)
	}
	want.InitData = measure.BoundTo(doc.Digest())
	return doc, want, nil
}

// verificationFault gives each kind of failure its code. Evidence that is not
// genuine is that first of all: what it is bound to does not matter then.
func verificationFault(err error) *fault.Fault {
	var v *measure.VerificationError
	if !errors.As(err, &v) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fault.New(fault.Unavailable, err)
		}
		return fault.New(fault.EvidenceInvalid, err)
	}
	code := fault.EvidenceInvalid
	switch {
	case v.UntrustedRoot():
		code = fault.RootUntrusted
	case only(v, measure.CheckBinding):
		code = fault.BindingMismatch
	case only(v, measure.CheckInitData):
		code = fault.InitDataMismatch
	case only(v, measure.CheckBinding, measure.CheckInitData):
		code = fault.BindingMismatch
	}
	return fault.New(code, err)
}

// only reports whether every failed check is among the given ones.
func only(v *measure.VerificationError, names ...measure.CheckName) bool {
	matched := 0
	for _, n := range names {
		if v.Has(n) {
			matched++
		}
	}
	return matched > 0 && matched == len(v.Failed)
}

// appraise asks the attestation policy and builds the token's submod.
func (s *Service) appraise(ctx context.Context, att api.Attestation, doc *initdata.Document, v measure.Verdict) (judgement, error) {
	evidence, err := annotated(att, doc, v)
	if err != nil {
		return judgement{}, fault.Newf(fault.Internal, "claims: %w", err)
	}
	input, err := json.Marshal(evidence)
	if err != nil {
		return judgement{}, fault.Newf(fault.Internal, "encode claims: %w", err)
	}
	stepped, done := observe.Step(ctx, observe.StepAppraise)
	a, err := s.cfg.Policies.Appraise(stepped, policy.DefaultID+"_"+v.Class, input)
	done(err)
	if err != nil {
		return judgement{}, fault.New(fault.PolicyError, err)
	}
	sub := token.Submod{Vector: a.Vector, PolicyID: policy.DefaultID, Evidence: evidence, Extensions: map[string]any{}}
	for _, e := range a.Extensions {
		if token.Reserved(e.Name) {
			return judgement{}, fault.Newf(fault.PolicyError, "%s: extension %q would replace a member of the token", a.Policy, e.Name)
		}
		sub.Extensions[e.Name] = e.Value
	}
	if v.Root.Simulated {
		sub.Extensions[token.SimulatedRoot] = v.Root.Name
	}
	return judgement{submod: sub, policy: a.Policy, verdict: v}, nil
}

// annotated builds the object that is both the policy's input and the token's
// annotated evidence (kbs-protocol 9.2).
func annotated(att api.Attestation, doc *initdata.Document, v measure.Verdict) (map[string]any, error) {
	tee := maps.Clone(v.Claims)
	if tee == nil {
		tee = measure.Claims{}
	}
	delete(tee, claimSimulatedRoot)
	if v.Root.Simulated {
		tee[claimSimulatedRoot] = v.Root.Name
	}
	out := map[string]any{string(v.Platform): tee}
	key, err := rcar.ReduceJWK(att.RuntimeData.TEEPubKey)
	if err != nil {
		return nil, fmt.Errorf("guest key: %w", err)
	}
	if d, ok := tee["report_data"]; ok {
		delete(tee, "report_data")
		out["report_data"] = d
		// additional-evidence is left out: it may be megabytes, and a bearer
		// token has to fit into a request head (kbs-protocol 10, verbose_token).
		out["runtime_data_claims"] = map[string]any{"nonce": att.RuntimeData.Nonce, "tee-pubkey": key}
	} else {
		return nil, errors.New("the verifier gave no report_data")
	}
	if d, ok := tee["init_data"]; ok {
		delete(tee, "init_data")
		out["init_data"] = d
		out["init_data_claims"] = nil
		if doc != nil {
			out["init_data_claims"] = initDataClaims(doc)
		}
	}
	return out, nil
}

// entry is the audit entry of a successful attestation. A token that is not
// affirming opens nothing under the default policies; the entry tells.
func (j judgement) entry(c challenge.Challenge) api.AuditEntry {
	details := map[string]string{
		"platform": c.Platform,
		"status":   string(j.submod.Vector.Status()),
		"policy":   j.policy,
		"root":     j.verdict.Root.Name,
	}
	if j.verdict.Root.Simulated {
		details["simulated_root"] = j.verdict.Root.Name
	}
	for _, k := range j.verdict.Checks {
		if k.Outcome == measure.Waived {
			details["waived_"+string(k.Name)] = k.Reason
		}
	}
	return api.AuditEntry{Kind: api.AuditAttest, Decision: "allow", Subject: subject(c), Object: "token/" + c.Ceremony, Details: details}
}
