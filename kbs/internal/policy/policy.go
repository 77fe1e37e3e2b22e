// Package policy keeps and evaluates the broker's Rego policies.
//
// There are two kinds. An attestation policy turns the claims of verified
// evidence into a trustworthiness vector; a resource policy says whether the
// holder of a token may have a resource (kbs-protocol 9). Of several resource
// policies the one with the longest matching name decides.
//
// Every version of a policy is kept. A version is a draft, or in the shadow,
// where it is evaluated beside the one in force and only counted, or in force.
// Decisions are recorded, so that a candidate can be replayed over them before
// it bites.
//
// Each version is compiled and prepared once. Evaluation is limited in time,
// memory and the size of its result, and no builtin reaches the network, the
// environment or another policy.
//
// A refusal can be explained: which claim was seen, which values were wanted,
// and the line of the rule that did not hold. Explanations cost a second
// evaluation and are for administrators only.
package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kind tells what a policy decides.
type Kind string

// The kinds.
const (
	Attestation Kind = "attestation"
	Resource    Kind = "resource"
)

// Identifiers of policies that the broker evaluates.
const (
	// DefaultID is what tokens show as ear.appraisal-policy-id. The policy of
	// a class is stored as DefaultID_class (kbs-protocol 9.2).
	DefaultID = "default"
	// DefaultCPU judges the primary evidence.
	DefaultCPU = "default_cpu"
	// ResourcePolicy decides where no policy has a more specific name
	// (kbs-protocol 7).
	ResourcePolicy = "resource-policy"
)

// classes are those of kbs-protocol 9.2.
var classes = []string{"cpu", "gpu", "switch", "ppcie", "dcu", "nvidia-dpu"}

// MaxSize limits a policy text, in bytes.
const MaxSize = 256 << 10

// MaxPolicies limits the number of policies in one store. Their heads are kept
// in memory.
const MaxPolicies = 10_000

// maxSegments bounds the depth of a resource policy's name, and with it the
// names that are tried for one release.
const maxSegments = 8

var segment = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$`)

// Errors of the callers' making.
var (
	// ErrName says that a kind or an id is not legal.
	ErrName = errors.New("policy: kind is attestation or resource, id is up to 64 of [A-Za-z0-9_.-], or for a resource PLUGIN/PATH")
	// ErrRequest says that what was asked for makes no sense as such.
	ErrRequest = errors.New("policy")
	// ErrFull says that there are MaxPolicies policies.
	ErrFull = fmt.Errorf("%w: there are %d policies already", ErrRequest, MaxPolicies)
)

// ParseName checks a kind and an id that came from outside.
func ParseName(kind, id string) (Kind, error) {
	k := Kind(kind)
	if k != Attestation && k != Resource {
		return "", ErrName
	}
	parts := strings.Split(id, "/")
	if len(parts) > maxSegments || (len(parts) > 1 && k != Resource) {
		return "", ErrName
	}
	for _, p := range parts {
		if !segment.MatchString(p) {
			return "", ErrName
		}
	}
	return k, nil
}

// InForce reports whether the broker evaluates a policy of this name: for
// evidence SELECTOR_CLASS, where the selectors are `default` and those that
// the configuration names; for releases `resource-policy` and PLUGIN/PATH.
func InForce(kind Kind, id string, selectors ...string) bool {
	if kind == Resource {
		return id == ResourcePolicy || strings.Contains(id, "/")
	}
	for _, class := range classes {
		if s, ok := strings.CutSuffix(id, "_"+class); ok && (s == DefaultID || slices.Contains(selectors, s)) {
			return true
		}
	}
	return false
}

// candidates are the names of the resource policies that may decide about a
// path of a plugin, the most specific first: PLUGIN/a/b/c, PLUGIN/a/b,
// PLUGIN/a, resource-policy.
func candidates(plugin string, path []string) []string {
	names := make([]string, 0, maxSegments)
	full := plugin
	for _, p := range path[:min(len(path), maxSegments-1)] {
		full += "/" + p
		names = append(names, full)
	}
	slices.Reverse(names)
	return append(names, ResourcePolicy)
}

// Ref names one version of one policy, for example "attestation/default_cpu@3".
func Ref(kind Kind, id string, version int64) string {
	return fmt.Sprintf("%s/%s@%d", kind, id, version)
}
