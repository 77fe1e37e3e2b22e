package measure

import (
	"fmt"
	"strings"
)

// CheckName names one thing that a verifier looks at.
type CheckName string

// The checks of every platform. A platform on which one makes no sense reports
// it as NotApplicable.
const (
	CheckSignature  CheckName = "signature"
	CheckChain      CheckName = "chain"
	CheckRevocation CheckName = "revocation"
	CheckTCB        CheckName = "tcb"
	CheckBinding    CheckName = "binding"
	CheckInitData   CheckName = "init_data"
	CheckEventLog   CheckName = "event_log"
)

// Outcome is the result of one check.
type Outcome string

// The outcomes. There is no "unknown": what could not be checked has failed.
const (
	Passed        Outcome = "passed"
	Failed        Outcome = "failed"
	Waived        Outcome = "waived"
	NotApplicable Outcome = "not-applicable"
)

// A Finding is one field that is not as wanted.
type Finding struct {
	Field  string   `json:"field"`
	Seen   string   `json:"seen"`
	Wanted []string `json:"wanted,omitempty"`
}

// A Check is the result of looking at one thing.
type Check struct {
	Name     CheckName `json:"name"`
	Outcome  Outcome   `json:"outcome"`
	Reason   string    `json:"reason,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
}

// Root says where the chain of the evidence ended.
type Root struct {
	Name string `json:"name"` // for example "AMD Milan", or the configured name of a simulated root
	// Simulated is true for a root that a configuration made trusted by name.
	// It reaches the token, and the default policies refuse it.
	Simulated bool `json:"simulated"`
}

// Claims are the values that policies read, under the names of kbs-protocol
// 16. Values are strings, bools, json.Number or nested Claims.
type Claims map[string]any

// Verdict is what evidence is worth.
type Verdict struct {
	Platform Platform `json:"platform"`
	// Class is the attester class, "cpu" or a device class (kbs-protocol 9.2).
	Class  string  `json:"class"`
	Root   Root    `json:"root"`
	Checks []Check `json:"checks"`
	Claims Claims  `json:"claims"`
}

// Check returns the named check; a check that was never made has failed.
func (v Verdict) Check(name CheckName) Check {
	for _, c := range v.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{Name: name, Outcome: Failed, Reason: "not made"}
}

// Err returns a *VerificationError if any check failed, nil otherwise.
func (v Verdict) Err() error {
	var failed []Check
	for _, c := range v.Checks {
		if c.Outcome != Passed && c.Outcome != Waived && c.Outcome != NotApplicable {
			failed = append(failed, c)
		}
	}
	if len(v.Checks) == 0 {
		failed = append(failed, v.Check(CheckSignature))
	}
	if failed == nil {
		return nil
	}
	return &VerificationError{Platform: v.Platform, Failed: failed}
}

// VerificationError lists every check that failed, not only the first.
type VerificationError struct {
	Platform Platform
	Failed   []Check
}

// Error tells all failures in one line. The text names claims and values, so
// it is for the operator, not for the guest.
func (e *VerificationError) Error() string {
	parts := make([]string, len(e.Failed))
	for i, c := range e.Failed {
		parts[i] = fmt.Sprintf("%s: %s", c.Name, c.Reason)
	}
	return fmt.Sprintf("%s evidence refused: %s", e.Platform, strings.Join(parts, "; "))
}

// FieldRoot is the Finding.Field under which a chain check that failed reports
// a root that nobody trusts: what was seen at the end of the chain, and the
// roots that are trusted. No other finding uses this name.
const FieldRoot = "root"

// UntrustedRoot reports whether the evidence ends in a root that the verifier
// does not trust, as opposed to a chain that is broken under a trusted one.
func (e *VerificationError) UntrustedRoot() bool {
	for _, c := range e.Failed {
		for _, f := range c.Findings {
			if c.Name == CheckChain && f.Field == FieldRoot {
				return true
			}
		}
	}
	return false
}

// Has reports whether the named check is among the failures.
func (e *VerificationError) Has(name CheckName) bool {
	for _, c := range e.Failed {
		if c.Name == name {
			return true
		}
	}
	return false
}
