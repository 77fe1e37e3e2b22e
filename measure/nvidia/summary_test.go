package nvidia

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// A check of the summary is that of the device that fared worst, wherever it
// stands in the list.
func TestSummary(t *testing.T) {
	check := func(o measure.Outcome, reason string) measure.Check {
		return measure.Check{Name: measure.CheckTCB, Outcome: o, Reason: reason, Findings: []measure.Finding{{Field: "f", Seen: reason}}}
	}
	good := check(measure.Passed, "")
	for name, c := range map[string]struct {
		checks   []measure.Check
		outcome  measure.Outcome
		reason   string
		findings int
	}{
		"all good":          {[]measure.Check{good, good}, measure.Passed, "", 1},
		"the last is bad":   {[]measure.Check{good, good, check(measure.Failed, "bad")}, measure.Failed, "device 2: bad", 1},
		"the first is bad":  {[]measure.Check{check(measure.Failed, "bad"), good}, measure.Failed, "device 0: bad", 1},
		"bad and waived":    {[]measure.Check{check(measure.Waived, "so"), check(measure.Failed, "bad")}, measure.Failed, "device 1: bad", 1},
		"waived":            {[]measure.Check{good, check(measure.Waived, "so")}, measure.Waived, "device 1: so", 1},
		"waived for all":    {[]measure.Check{check(measure.Waived, "so"), check(measure.Waived, "so")}, measure.Waived, "so", 1},
		"bad in two ways":   {[]measure.Check{check(measure.Failed, "a"), check(measure.Failed, "b")}, measure.Failed, "device 0: a; device 1: b", 2},
		"no known outcome":  {[]measure.Check{good, check("perhaps", "x")}, "perhaps", "device 1: x", 1},
		"one does not tell": {[]measure.Check{{Name: measure.CheckChain, Outcome: measure.Passed}, good}, measure.Failed, "device 0: not made", 0},
	} {
		var all []measure.Verdict
		for _, k := range c.checks {
			all = append(all, measure.Verdict{Root: measure.Root{Name: RootName}, Checks: []measure.Check{k}})
		}
		got := summary(all)
		if k := got.Check(measure.CheckTCB); k.Outcome != c.outcome || k.Reason != c.reason || len(k.Findings) != c.findings {
			t.Errorf("%s: %+v", name, got.Checks)
		}
		if bad := c.outcome != measure.Passed && c.outcome != measure.Waived; (got.Err() != nil) != bad {
			t.Errorf("%s: %v", name, got.Err())
		}
	}
}

// The root of a list is the one that is worth least.
func TestSummaryRoot(t *testing.T) {
	genuine, sim, none := measure.Root{Name: RootName}, measure.Root{Name: "lab", Simulated: true}, measure.Root{}
	for _, c := range []struct {
		roots []measure.Root
		want  measure.Root
	}{
		{[]measure.Root{genuine, genuine}, genuine}, {[]measure.Root{genuine, sim}, sim}, {[]measure.Root{sim, genuine}, sim},
		{[]measure.Root{genuine, none, sim}, none}, {[]measure.Root{none, sim}, none}, {[]measure.Root{sim, none}, none},
	} {
		var all []measure.Verdict
		for _, r := range c.roots {
			all = append(all, measure.Verdict{Root: r})
		}
		got := summary(all)
		if got.Root != c.want || (got.Claims[ClaimSimulatedRoot] != nil) != c.want.Simulated {
			t.Errorf("%v: %+v", c.roots, got)
		}
	}
}
