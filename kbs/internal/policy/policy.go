// Package policy keeps and evaluates the broker's Rego policies.
//
// There are two kinds. An attestation policy turns the claims of verified
// evidence into a trustworthiness vector; a resource policy says whether the
// holder of a token may have a resource (kbs-protocol 9). Each stored version
// is compiled and prepared once. Evaluation has a deadline, and no builtin
// reaches the network, the environment or another policy.
//
// A refusal can be explained: which claim was seen, which values were wanted,
// and the line of the rule that did not hold. Explanations cost a second
// evaluation and are for administrators only.
package policy

import (
	"errors"
	"fmt"
	"regexp"
)

// Kind tells what a policy decides.
type Kind string

// The kinds.
const (
	Attestation Kind = "attestation"
	Resource    Kind = "resource"
)

// Identifiers of the policies that the broker evaluates.
const (
	// DefaultID is what tokens show as ear.appraisal-policy-id. The policy of
	// a class is stored as DefaultID_class (kbs-protocol 9.2).
	DefaultID = "default"
	// DefaultCPU judges the primary evidence.
	DefaultCPU = "default_cpu"
	// ResourcePolicy is the one resource policy (kbs-protocol 7).
	ResourcePolicy = "resource-policy"
)

// InForce reports whether the broker evaluates the policy of this name.
func InForce(kind Kind, id string) bool {
	return kind == Attestation && id == DefaultCPU || kind == Resource && id == ResourcePolicy
}

// MaxSize limits a policy text, in bytes.
const MaxSize = 256 << 10

var idForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$`)

// ErrName says that a kind or an id is not legal.
var ErrName = errors.New("policy: kind is attestation or resource, id is up to 64 of [A-Za-z0-9_.-]")

// ParseName checks a kind and an id that came from outside.
func ParseName(kind, id string) (Kind, error) {
	k := Kind(kind)
	if (k != Attestation && k != Resource) || !idForm.MatchString(id) {
		return "", ErrName
	}
	return k, nil
}

// Ref names one version of one policy, for example "attestation/default_cpu@3".
func Ref(kind Kind, id string, version int64) string {
	return fmt.Sprintf("%s/%s@%d", kind, id, version)
}
