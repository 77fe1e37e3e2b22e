package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// appraised is one attester that verified, under the name of its submod.
type appraised struct {
	name    string
	submod  token.Submod
	policy  string // the version that judged
	verdict measure.Verdict
}

// judgement is what the broker thinks of evidence that verified, the CPU's
// first.
type judgement []appraised

func (j judgement) submods() map[string]token.Submod {
	out := make(map[string]token.Submod, len(j))
	for _, a := range j {
		out[a.name] = a.submod
	}
	return out
}

// judge goes through the answer in the order of the specification: freshness,
// binding, hardware, policy. All evidence that came must verify, or nothing
// comes of it. Every refusal is a *fault.Fault.
func (s *Service) judge(ctx context.Context, c challenge.Challenge, att api.Attestation) (judgement, error) {
	if !sameNonce(att.RuntimeData.Nonce, c.Nonce) {
		return nil, fault.New(fault.NonceMismatch, &nonceError{seen: clip(att.RuntimeData.Nonce, 128), wanted: c.Nonce})
	}
	if err := checkKey(rcar.Version(c.Version), att.RuntimeData.TEEPubKey); err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	doc, err := readInitData(att.InitData)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	pieces, err := s.pieces(c, att, doc)
	if err != nil {
		return nil, err
	}
	return s.weigh(ctx, c.Policy, pieces)
}

// weigh verifies all evidence, the CPU's first, and asks the policies of that
// id about it. A piece may be that of several devices: each has a verdict, a
// submod and a policy of its own.
func (s *Service) weigh(ctx context.Context, id string, pieces []piece) (judgement, error) {
	var verdicts []measure.Verdict
	var of []piece // of each verdict
	for _, p := range pieces {
		all, err := p.verify(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range all {
			verdicts, of = append(verdicts, v), append(of, p)
		}
	}
	names, err := submodNames(verdicts)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	out := make(judgement, len(verdicts))
	for i, v := range verdicts {
		if out[i], err = s.appraise(ctx, id, names[i], of[i], v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkKey refuses early what nothing could be encrypted to. RSA1_5 is for
// guests of protocol 0.1 alone, and they have nothing else.
func checkKey(v rcar.Version, key api.JWK) error {
	if v.Unsafe() {
		return jwe.UnsafeCheckV01(key)
	}
	return jwe.Check(key)
}

func readInitData(in *api.InitData) (*initdata.Document, error) {
	if in == nil {
		return nil, nil
	}
	if in.Format != "toml" {
		return nil, fmt.Errorf("init-data format %q is not toml", clip(in.Format, 32))
	}
	return initdata.Parse([]byte(in.Body))
}

// piece is the evidence of one platform, and what it must be bound to.
type piece struct {
	verifier measure.Verifier
	evidence measure.Evidence
	want     measure.Expected
	runtime  any                // what the report data is the digest of, as policies and the token have it
	doc      *initdata.Document // nil if there is none
}

// verify returns a verdict for each attester that the evidence is of, and an
// error unless all of them are good.
func (p piece) verify(ctx context.Context) (_ []measure.Verdict, err error) {
	ctx, done := observe.Step(ctx, observe.StepEvidence)
	defer func() { done(err) }()
	all, err := measure.VerifyAll(ctx, p.verifier, p.evidence, p.want)
	if err == nil {
		err = unanimous(p.verifier.Platform(), all)
	}
	if err != nil {
		return nil, verificationFault(err)
	}
	return all, nil
}

// unanimous asks the verdicts once more: a verifier that forgets to say no must
// not mean yes.
func unanimous(platform measure.Platform, all []measure.Verdict) error {
	if len(all) == 0 {
		return fmt.Errorf("the %s verifier gave no verdict", platform)
	}
	if err := measure.ListErr(all); err != nil {
		return err
	}
	for _, v := range all {
		if v.Platform != platform {
			return fmt.Errorf("the %s verifier gave a verdict on %q", platform, v.Platform)
		}
		if v.Check(measure.CheckBinding).Outcome != measure.Passed {
			return fmt.Errorf("the %s verifier did not compare what the evidence is bound to", v.Platform)
		}
	}
	return nil
}

// pieces lists the evidence of an answer, the CPU's first. The devices' is
// bound to nonce and key alone, and the CPU's to theirs (kbs-protocol 3.5).
func (s *Service) pieces(c challenge.Challenge, att api.Attestation, doc *initdata.Document) ([]piece, error) {
	hash, err := rcar.ParseHash(c.Hash)
	if err != nil {
		return nil, fault.New(fault.Internal, err) // we chose it
	}
	devices, err := parseDevices(att.TEEEvidence.AdditionalEvidence, c.Platform)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	digest, err := rcar.Version(c.Version).PrimaryDigest(hash, att.RuntimeData, att.TEEEvidence.AdditionalEvidence)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	initData := measure.NotPresented()
	if doc != nil {
		initData = measure.BoundTo(doc.Digest())
	}
	runtime, err := s.runtimeClaims(att)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	cpu, err := s.piece(c.Platform, att.TEEEvidence.PrimaryEvidence, measure.Expected{ReportData: measure.BoundTo(digest), InitData: initData})
	cpu.runtime, cpu.doc = runtime, doc
	if err != nil || len(devices) == 0 {
		return []piece{cpu}, err
	}
	if digest, err = rcar.DeviceDigest(hash, att.RuntimeData); err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	out := []piece{cpu}
	for _, d := range devices {
		p, err := s.piece(d.platform, d.evidence, measure.Expected{ReportData: measure.BoundTo(digest), InitData: measure.NotPresented()})
		if err != nil {
			return nil, err
		}
		p.runtime, p.doc = runtime, doc
		out = append(out, p)
	}
	return out, nil
}

func (s *Service) piece(platform string, evidence json.RawMessage, want measure.Expected) (piece, error) {
	v, ok := s.cfg.Registry.Verifier(measure.Platform(platform))
	if !ok {
		return piece{}, fault.Newf(fault.PlatformDisabled, "platform %s is not enabled", platform)
	}
	return piece{verifier: v, evidence: measure.Evidence{Platform: measure.Platform(platform), Data: evidence}, want: want}, nil
}

// submodNames numbers the attesters of each class (kbs-protocol 10). The
// guest's key is read from that of the CPU, so the first must be one.
func submodNames(vs []measure.Verdict) ([]string, error) {
	count := map[string]int{}
	names := make([]string, len(vs))
	for i, v := range vs {
		names[i] = v.Class + strconv.Itoa(count[v.Class])
		count[v.Class]++
	}
	if names[0] != token.CPU {
		return nil, fmt.Errorf("the primary evidence is that of %s, class %q, not of a CPU", vs[0].Platform, vs[0].Class)
	}
	return names, nil
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

// appraise asks the attestation policy of the attester's class and builds the
// submod.
func (s *Service) appraise(ctx context.Context, id, name string, p piece, v measure.Verdict) (appraised, error) {
	evidence, err := Annotated(p.runtime, p.doc, v)
	if err != nil {
		return appraised{}, fault.Newf(fault.Internal, "claims: %w", err)
	}
	input, err := json.Marshal(evidence)
	if err != nil {
		return appraised{}, fault.Newf(fault.Internal, "encode claims: %w", err)
	}
	if s.cfg.Revoked != nil {
		if err := s.cfg.Revoked.Evidence(ctx, input); err != nil {
			return appraised{}, err
		}
	}
	stepped, done := observe.Step(ctx, observe.StepAppraise)
	a, err := s.cfg.Policies.Appraise(stepped, id+"_"+v.Class, input)
	done(err)
	if err != nil {
		return appraised{}, fault.New(fault.PolicyError, err)
	}
	sub, err := SubmodOf(id, a, evidence, v)
	if err != nil {
		return appraised{}, fault.New(fault.PolicyError, err)
	}
	return appraised{name: name, submod: sub, policy: a.Policy, verdict: v}, nil
}

// SubmodOf is what the token says of one attester: the appraisal by the policies
// of that id, over its annotated evidence.
func SubmodOf(id string, a policy.Appraisal, evidence map[string]any, v measure.Verdict) (token.Submod, error) {
	sub := token.Submod{Vector: a.Vector, PolicyID: id, Evidence: evidence, Extensions: map[string]any{}}
	for _, e := range a.Extensions {
		if token.Reserved(e.Name) {
			return token.Submod{}, fmt.Errorf("%s: extension %q would replace a member of the token", a.Policy, e.Name)
		}
		sub.Extensions[e.Name] = e.Value
	}
	if v.Root.Simulated {
		sub.Extensions[token.SimulatedRoot] = v.Root.Name
	}
	return sub, nil
}
