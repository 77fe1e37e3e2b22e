// Package outline knows the members of image policies: their names, their places,
// and which kind of value each has.
//
// It is the one list of them. Package trust, which says what they mean, refuses a
// policy that has not this outline, so that no member can be added there and
// forgotten here. The broker tells policies by it from everything else that it
// holds, and shows an administrator the ones and nothing but them; it judges no
// images, and does without the libraries that trust needs for that.
//
// What it promises the broker is that a key, a password or a configuration with
// secrets is never taken for a policy: every member at every place must be one that
// policies have there, and none of those holds a secret.
package outline

import (
	"encoding/json"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// The types of requirements (containers-policy.json(5)); the last three are ours.
const (
	Reject         = "reject"
	AcceptAnything = "insecureAcceptAnything"
	SignedBy       = "signedBy"
	SigstoreSigned = "sigstoreSigned"
	NotationSigned = "notationSigned"
	Attested       = "attested"
	Encrypted      = "encrypted"
)

var types = []string{Reject, AcceptAnything, SignedBy, SigstoreSigned, NotationSigned, Attested, Encrypted}

// Limits of a policy.
const (
	MaxSize   = 1 << 20 // bytes
	maxScopes = 4096    // of all transports
	maxRules  = 64      // of one scope
)

// Is reports whether a value is an image policy.
func Is(value []byte) bool {
	if len(value) > MaxSize || strictjson.Check(value) != nil {
		return false
	}
	top, ok := object(value)
	if !ok || len(top["default"]) == 0 || !only(top, "default", "transports") || !rules(top["default"]) {
		return false
	}
	raw, there := top["transports"]
	if !there {
		return true
	}
	transports, ok := object(raw)
	scopes := 0
	for _, t := range transports {
		all, is := object(t)
		if scopes += len(all); !is || scopes > maxScopes {
			return false
		}
		for _, s := range all {
			if !rules(s) {
				return false
			}
		}
	}
	return ok
}

// rules reports whether the value is a list of requirements.
func rules(raw json.RawMessage) bool {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || len(list) > maxRules {
		return false
	}
	for _, r := range list {
		if !IsRequirement(r) {
			return false
		}
	}
	return true
}

// IsRequirement reports whether a value is one requirement: an object that says of
// what type it is, and has nothing that requirements have not.
func IsRequirement(raw []byte) bool {
	members, ok := object(raw)
	var kind string
	return ok && json.Unmarshal(members["type"], &kind) == nil && slices.Contains(types, kind) && requirement(raw)
}

// object reads the members of a JSON object.
func object(raw json.RawMessage) (map[string]json.RawMessage, bool) {
	var m map[string]json.RawMessage
	err := json.Unmarshal(raw, &m)
	return m, err == nil && m != nil
}

func only(m map[string]json.RawMessage, names ...string) bool {
	for name := range m {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}
