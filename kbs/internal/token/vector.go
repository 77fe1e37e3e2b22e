package token

import (
	"fmt"
	"slices"
)

// ClaimNames are the members of a trustworthiness vector (AR4SI,
// kbs-protocol 9.2), in the order in which tokens are read aloud.
var ClaimNames = []string{
	"instance-identity", "configuration", "executables", "file-system",
	"hardware", "runtime-opaque", "storage-opaque", "sourced-data",
}

// Vector is a trustworthiness vector: what a policy thinks of each aspect of
// an attester. Only members that were set are present.
type Vector map[string]int8

// Validate refuses a name that is not in [ClaimNames].
func (v Vector) Validate() error {
	for name := range v {
		if !slices.Contains(ClaimNames, name) {
			return fmt.Errorf("%q is not a trust claim", name)
		}
	}
	return nil
}

// Status is the tier of an appraisal: the worst of its vector.
type Status string

// The tiers, from best to worst (kbs-protocol 10).
const (
	None            Status = "none"
	Affirming       Status = "affirming"
	Warning         Status = "warning"
	Contraindicated Status = "contraindicated"
)

// Tier returns the tier of one value (kbs-protocol 10).
func Tier(v int8) Status {
	switch {
	case v >= -1 && v <= 1:
		return None
	case v >= -32 && v <= 31:
		return Affirming
	case v >= -96 && v <= 95:
		return Warning
	default:
		return Contraindicated
	}
}

// Status returns the worst tier over the vector's members. "none" is the tier
// of a vector that asserts nothing.
func (v Vector) Status() Status {
	order := []Status{None, Affirming, Warning, Contraindicated}
	worst := 0
	for _, value := range v {
		worst = max(worst, slices.Index(order, Tier(value)))
	}
	return order[worst]
}
