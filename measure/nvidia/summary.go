package nvidia

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// summary is one verdict over those of a list.
func summary(all []measure.Verdict) measure.Verdict {
	out := all[0]
	if len(all) == 1 {
		return out
	}
	devices := make([]any, len(all))
	for i, v := range all {
		devices[i] = v.Claims
		if v.Root.Name == "" || v.Root.Simulated && out.Root.Name != "" {
			out.Root = v.Root // the least that any of them has
		}
	}
	out.Checks = nil
	seen := map[measure.CheckName]bool{}
	for _, v := range all {
		for _, c := range v.Checks {
			if !seen[c.Name] {
				seen[c.Name] = true
				out.Checks = append(out.Checks, worst(all, c.Name))
			}
		}
	}
	out.Claims = measure.Claims{"devices": devices}
	if out.Root.Simulated {
		out.Claims[ClaimSimulatedRoot] = out.Root.Name
	}
	return out
}

// outcomes from the best to the worst. One that is not among them is worse.
var outcomes = []measure.Outcome{measure.NotApplicable, measure.Passed, measure.Waived, measure.Failed}

func rank(o measure.Outcome) int {
	if i := slices.Index(outcomes, o); i >= 0 {
		return i
	}
	return len(outcomes)
}

// worst is a check over all devices, with every reason and finding of those
// that came out worst. A check that one of them lacks has failed.
func worst(all []measure.Verdict, name measure.CheckName) measure.Check {
	out := measure.Check{Name: name, Outcome: measure.NotApplicable}
	for _, v := range all {
		if c := v.Check(name); rank(c.Outcome) > rank(out.Outcome) {
			out.Outcome = c.Outcome
		}
	}
	var reasons []string
	same := true
	for i, v := range all {
		c := v.Check(name)
		if c.Outcome != out.Outcome {
			same = false
			continue
		}
		same = same && c.Reason == all[0].Check(name).Reason
		if c.Reason != "" {
			reasons = append(reasons, fmt.Sprintf("device %d: %s", i, c.Reason))
		}
		for _, f := range c.Findings {
			if !slices.ContainsFunc(out.Findings, func(g measure.Finding) bool {
				return f.Field == g.Field && f.Seen == g.Seen && slices.Equal(f.Wanted, g.Wanted)
			}) {
				out.Findings = append(out.Findings, f)
			}
		}
	}
	if out.Reason = strings.Join(reasons, "; "); same {
		out.Reason = all[0].Check(name).Reason
	}
	return out
}
