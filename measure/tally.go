package measure

import "strings"

// A Tally collects what is wrong with one thing, so that a check reports all
// of it and not only what it came upon first. The zero value has found nothing.
type Tally struct {
	reasons  []string
	findings []Finding
}

// Fail adds a failure that no single field shows.
func (t *Tally) Fail(err error) { t.reasons = append(t.reasons, err.Error()) }

// Find adds a failure with the field that shows it, what was seen there and
// what was wanted.
func (t *Tally) Find(reason, field, seen string, wanted ...string) {
	t.reasons = append(t.reasons, reason)
	t.findings = append(t.findings, Finding{Field: field, Seen: seen, Wanted: wanted})
}

// Clean reports whether nothing was found wrong.
func (t *Tally) Clean() bool { return len(t.reasons) == 0 }

// Check returns the named check: passed if nothing was found wrong.
func (t *Tally) Check(name CheckName) Check {
	if t.Clean() {
		return Check{Name: name, Outcome: Passed}
	}
	return Check{Name: name, Outcome: Failed, Reason: strings.Join(t.reasons, "; "), Findings: t.findings}
}
