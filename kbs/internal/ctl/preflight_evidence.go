package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// appraised is what the broker's policies make of a guest's evidence.
type appraised struct {
	checks  []check
	claims  json.RawMessage // of the token that the guest would have; nil: it would have none
	affirms bool            // every attester is found affirming
}

// appraise asks the broker's attestation policies about evidence that measure
// verify has verified, the CPU's first.
func (p *preflight) appraise(ctx context.Context) (appraised, error) {
	out := appraised{affirms: true}
	if len(p.evidence) > 0 {
		return p.ask(ctx)
	}
	if len(p.verdicts) == 0 {
		return out, nil
	}
	refs, err := p.references(ctx)
	if err != nil {
		return out, err
	}
	submods, count := map[string]any{}, map[string]int{}
	for _, file := range p.verdicts {
		v, err := readVerdict(file)
		if err != nil {
			return out, err
		}
		members, k, err := p.appraiseOne(ctx, v, refs)
		if err != nil {
			return out, err
		}
		out.checks = append(out.checks, k)
		if k.Result != checkOK {
			out.affirms = false
		}
		if members == nil {
			return out, nil // evidence that does not hold, or a policy that cannot judge: no token
		}
		submods[v.Class+strconv.Itoa(count[v.Class])] = members
		count[v.Class]++
	}
	out.claims, err = json.Marshal(map[string]any{"submods": submods})
	return out, err
}

// readVerdict reads what measure verify -o json printed.
func readVerdict(file string) (measure.Verdict, error) {
	var v measure.Verdict
	raw, err := given.File(file, maxConfig)
	if err != nil {
		return v, usagef("%w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // claims are numbers of 64 bits
	if err := d.Decode(&v); err != nil || v.Platform == "" || v.Class == "" || len(v.Checks) == 0 {
		return v, usagef("%s is not what measure verify prints", file).
			hint("measure verify --evidence FILE ... -o json > %s", file)
	}
	return v, nil
}

// appraiseOne returns the submod of one attester, nil if the broker would give
// no token.
func (p *preflight) appraiseOne(ctx context.Context, v measure.Verdict, refs broughtValues) (map[string]any, check, error) {
	const name = "evidence"
	if err := v.Err(); err != nil {
		return nil, refused(name, "measure verify tells more", "the broker would refuse it: %v", err), nil
	}
	id := p.attestation + "_" + v.Class
	text, err := p.broker.Policy(ctx, string(policy.Attestation), id)
	if none, err := absent(err); none {
		return nil, refused(name, "kbsctl create policy attestation/"+id+" --from-file FILE", "the broker has no policy attestation/%s, which judges %s", id, v.Platform), nil
	} else if err != nil {
		return nil, broken(name, "", err), nil
	}
	evidence, err := attestation.Annotated(nil, p.document, v)
	if err != nil {
		return nil, check{}, usagef("evidence of %s: %w", v.Platform, err)
	}
	raw, err := json.Marshal(evidence)
	if err != nil {
		return nil, check{}, err
	}
	input, err := policy.ParseInput(raw)
	if err != nil {
		return nil, check{}, err
	}
	host := p.c.policyHost()
	defer host.Close()
	trial, err := host.Try(ctx, policy.Attestation, id, text.Rego)
	if err != nil {
		return nil, broken(name, "", err), nil
	}
	a, why, err := trial.Appraise(ctx, input, refs)
	if err != nil {
		return nil, refused(name, "kbsctl policy test", "policy/attestation/%s cannot decide: %v", id, err), nil
	}
	sub, err := attestation.SubmodOf(p.attestation, a, evidence, v)
	if err != nil {
		return nil, refused(name, "", "%v", err), nil
	}
	said := fmt.Sprintf("policy/attestation/%s finds %s %s%s", id, v.Platform, a.Vector.Status(), waivers(v))
	if a.Vector.Status() == token.Affirming {
		return token.Appraisal(sub), passed(name, "%s", said), nil
	}
	return token.Appraisal(sub), refused(name, "kbsctl explain policy/attestation/"+id+", or give the broker this guest's reference values (measure predict)",
		"%s", said+because(why)), nil
}

// waivers tells what was not checked of the evidence: the broker has settings of
// its own, and may not do without.
func waivers(v measure.Verdict) string {
	var text strings.Builder
	for _, k := range v.Checks {
		if k.Outcome == measure.Waived {
			fmt.Fprintf(&text, "\nwaived in measure verify, and perhaps not at the broker: %s", k.Name)
		}
	}
	if v.Root.Simulated {
		fmt.Fprintf(&text, "\nits root is simulated, which the broker must name: %s", v.Root.Name)
	}
	return text.String()
}

// because spells an explanation: which rule, and what the claims are.
func because(why policy.Explanation) string {
	var text strings.Builder
	if why.Rule != "" {
		fmt.Fprintf(&text, "\nrule %s, line %d of the policy", why.Rule, why.Line)
	}
	for _, f := range why.Findings {
		fmt.Fprintf(&text, "\n%s is %s", f.Claim, f.Seen)
		if len(f.Wanted) > 0 {
			fmt.Fprintf(&text, ", wanted %s", strings.Join(f.Wanted, " or "))
		}
	}
	return text.String()
}

// references are the broker's reference values in force, as policies ask for
// them.
func (p *preflight) references(ctx context.Context) (broughtValues, error) {
	values, err := p.broker.RefValues(ctx)
	if err != nil {
		return nil, err
	}
	refs := broughtValues{}
	for _, v := range values {
		if v.InForce {
			refs[v.Name] = v.Value
		}
	}
	return refs, nil
}

// settled takes back that evidence is not affirming where the keys are given to
// such a guest all the same: their policies ask for less.
func (a *appraised) settled(releases []check) {
	if a.affirms || a.claims == nil || len(releases) == 0 {
		return
	}
	for _, k := range releases {
		if k.Result != checkOK {
			return
		}
	}
	for i, k := range a.checks {
		if k.Result != checkOK {
			a.checks[i] = passed(k.Name, "%s\nthe policies of the keys do not ask for more", k.Detail)
		}
	}
}
