package ctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// coverageReport says which lines of a policy its tests did not run.
type coverageReport struct {
	Percent float64        `json:"percent"` // of the lines that can be run
	Rules   []ruleCoverage `json:"rules"`   // those that were not run in full
}

type ruleCoverage struct {
	Rule   string `json:"rule"`
	NotRun []int  `json:"not_run"` // lines
}

// coverage reads what the tracer saw of the policy itself.
func (t *policyTests) coverage() coverageReport {
	out := coverageReport{Rules: []ruleCoverage{}}
	file := t.cover.Report(t.modules).Files[t.file]
	if file == nil {
		return out
	}
	out.Percent = file.Coverage
	rules, err := policy.Outline(policy.Resource, t.text)
	if err != nil {
		return out // it was checked before
	}
	for _, r := range file.NotCovered {
		for line := r.Start.Row; line <= r.End.Row; line++ {
			name := ruleAt(rules, line)
			i := slices.IndexFunc(out.Rules, func(c ruleCoverage) bool { return c.Rule == name })
			if i < 0 {
				i = len(out.Rules)
				out.Rules = append(out.Rules, ruleCoverage{Rule: name})
			}
			if c := &out.Rules[i]; !slices.Contains(c.NotRun, line) {
				c.NotRun = append(c.NotRun, line)
			}
		}
	}
	return out
}

// ruleAt names the rule that a line is in: the one that begins last before it.
func ruleAt(rules []policy.RuleOutline, line int) string {
	name, begins := "", 0
	for _, r := range rules {
		for _, l := range r.Lines {
			if l <= line && l > begins {
				name, begins = r.Rule, l
			}
		}
	}
	return name
}

// ranges writes 3,4,5,9 as 3-5,9.
func ranges(lines []int) string {
	var out []string
	for i := 0; i < len(lines); {
		j := i
		for j+1 < len(lines) && lines[j+1] == lines[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprint(lines[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", lines[i], lines[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ",")
}
