package ctl

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

const maxEvidenceFile = 4 << 20 // bytes

// imagePolicy fetches the image policy from the broker where guests will.
func (p *preflight) imagePolicy(ctx context.Context) []check {
	const name = "image policy"
	if p.j.policy != "" || p.j.policyURI == "" || p.broker == nil {
		return nil
	}
	path, err := resourcePath(p.j.policyURI)
	if err != nil {
		return []check{broken(name, "", err)}
	}
	text, err := p.broker.ImagePolicy(ctx, path)
	switch {
	case err == nil:
		p.j.policyText = text
		return nil
	case fault.CodeOf(err) == fault.Forbidden:
		return nil // a viewer: what follows says that the text is wanted
	case fault.CodeOf(err) == fault.NotFound:
		return []check{refused(name, "kbsctl create resource "+path+" --from-file FILE", "%s is not at the broker, and a guest without an image policy runs nothing", p.j.policyURI)}
	}
	return []check{broken(name, "", err)}
}

// refusals are what the broker refuses a guest for, and no failures of this
// command.
var refusals = []fault.Code{
	fault.EvidenceInvalid, fault.RootUntrusted, fault.BindingMismatch, fault.InitDataMismatch, fault.PlatformDisabled, fault.GuestRevoked, fault.PolicyError,
}

// ask has the broker judge evidence: by its verifiers and policies, with what it
// has revoked.
func (p *preflight) ask(ctx context.Context) (appraised, error) {
	const name = "evidence"
	var out appraised
	req, err := p.request()
	if err != nil {
		return out, err
	}
	got, err := p.broker.Appraise(ctx, req)
	if err != nil {
		k := broken(name, "", err)
		if slices.Contains(refusals, fault.CodeOf(err)) {
			k.exit = fault.ExitRefused
		}
		out.checks = []check{k}
		return out, nil
	}
	out.claims, out.affirms = got.Claims, true
	for _, a := range got.Attesters {
		k := p.attester(a)
		out.affirms = out.affirms && k.Result == checkOK
		out.checks = append(out.checks, k)
	}
	return out, nil
}

func (p *preflight) request() (api.AppraisalRequest, error) {
	req := api.AppraisalRequest{Policy: p.attestation}
	bound, err := hex.DecodeString(p.bound)
	if err != nil || len(bound) == 0 {
		return req, usagef("--report-data: want hexadecimal digits")
	}
	for i, spec := range p.evidence {
		platform, file, ok := strings.Cut(spec, "=")
		if !ok || platform == "" || file == "" {
			return req, usagef("--evidence %s is not PLATFORM=FILE", spec).hint("--evidence snp=evidence.json")
		}
		raw, err := given.File(file, maxEvidenceFile)
		if err != nil {
			return req, usagef("%w", err)
		}
		if !json.Valid(raw) {
			return req, usagef("%s is not evidence, which is JSON", file).hint("measure obtain --report-data HEX > %s", file)
		}
		e := api.AppraisalEvidence{Platform: platform, Data: raw, ReportData: bound}
		if i == 0 && p.document != nil {
			e.InitData = p.initDataText
		}
		req.Evidence = append(req.Evidence, e)
	}
	return req, nil
}

// attester is what the broker said of one.
func (p *preflight) attester(a api.AppraisedAttester) check {
	const name = "evidence"
	said := fmt.Sprintf("the broker takes it, and policy/%s finds %s %s", a.Policy, a.Platform, a.Status)
	for _, k := range slices.Sorted(maps.Keys(a.Waived)) {
		said += fmt.Sprintf("\nwaived at the broker: %s, %s", k, a.Waived[k])
	}
	if a.Simulated {
		said += "\nits root is simulated: " + a.Root
	}
	if a.Status == string(token.Affirming) {
		return passed(name, "%s", said)
	}
	return refused(name, "kbsctl explain policy/"+a.Policy+", or give the broker this guest's reference values (measure predict)",
		"%s", said+because(policy.Explanation{Rule: a.Rule, Line: a.Line, Findings: a.Findings}))
}
