package attestation

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Appraise judges evidence for an administrator who wants to know what a guest
// with it would get: by the verifiers, the collateral, the waivers, the revoked
// claims and the policies that judge guests. There is no token, so nothing can be
// had for it; the caller records who asked. Where another Attestation Service
// judges guests, this broker does not know.
func (s *Service) Appraise(ctx context.Context, req api.AppraisalRequest) (api.Appraisal, error) {
	if s.cfg.Remote != nil {
		return api.Appraisal{}, fault.Newf(fault.Unsupported, "evidence is judged by another attestation service: ask that one")
	}
	e := Evaluation{Policy: req.Policy}
	for _, one := range req.Evidence {
		e.Evidence = append(e.Evidence, Evidence{Platform: one.Platform, Data: one.Data, ReportData: one.ReportData, InitData: one.InitData})
	}
	out, err := inTurn(ctx, s.cfg.Gate, func() (api.Appraisal, error) { return s.appraisal(ctx, e) })
	if errors.Is(err, errTurnedAway) {
		return out, err
	}
	if err != nil {
		return out, faultOf(err)
	}
	return out, nil
}

// appraisal judges and explains, all in one turn: an explanation evaluates the
// policy twice more.
func (s *Service) appraisal(ctx context.Context, e Evaluation) (api.Appraisal, error) {
	var out api.Appraisal
	j, err := s.evaluate(ctx, e)
	if err != nil {
		return out, err
	}
	members := map[string]any{}
	for _, a := range j {
		members[a.name] = token.Appraisal(a.submod)
		who, err := s.attester(ctx, a)
		if err != nil {
			return out, err
		}
		out.Attesters = append(out.Attesters, who)
	}
	if out.Claims, err = json.Marshal(map[string]any{"submods": members}); err != nil {
		return out, fault.Newf(fault.Internal, "encode claims: %w", err)
	}
	return out, nil
}

// attester tells of one attester, and of one that is not found affirming why.
func (s *Service) attester(ctx context.Context, a appraised) (api.AppraisedAttester, error) {
	status := a.submod.Vector.Status()
	out := api.AppraisedAttester{
		Name: a.name, Platform: string(a.verdict.Platform), Status: string(status), Policy: a.policy,
		Root: a.verdict.Root.Name, Simulated: a.verdict.Root.Simulated,
	}
	for _, k := range a.verdict.Checks {
		if k.Outcome != measure.Waived {
			continue
		}
		if out.Waived == nil {
			out.Waived = map[string]string{}
		}
		out.Waived[string(k.Name)] = k.Reason
	}
	if status == token.Affirming {
		return out, nil
	}
	input, err := json.Marshal(a.submod.Evidence)
	if err != nil {
		return out, fault.Newf(fault.Internal, "encode claims: %w", err)
	}
	why, err := s.cfg.Policies.ExplainAppraisal(ctx, a.submod.PolicyID+"_"+a.verdict.Class, input)
	if err != nil {
		return out, fault.New(fault.PolicyError, err)
	}
	out.Rule, out.Line, out.Findings = why.Rule, why.Line, why.Findings
	return out, nil
}
