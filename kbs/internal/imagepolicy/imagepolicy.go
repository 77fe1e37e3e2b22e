// Package imagepolicy tells image policies from everything else that lies at the
// broker, so that an administrator may read the ones and nothing but them.
//
// It does not judge them: guests and kbsctl do (image/trust), with libraries that
// the broker does without. What it promises is that a key, a password or a
// configuration with secrets is never taken for a policy: every member at every
// place must be one that policies have there, and none of those holds a secret.
package imagepolicy

import (
	"encoding/json"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	maxSize   = 1 << 20 // bytes
	maxScopes = 4096    // of all transports
	maxRules  = 64      // of one scope
)

// types are those of requirements (containers-policy.json(5)), ours too.
var types = []string{"reject", "insecureAcceptAnything", "signedBy", "sigstoreSigned", "notationSigned", "attested", "encrypted"}

// Is reports whether a value is an image policy.
func Is(value []byte) bool {
	if len(value) > maxSize || strictjson.Check(value) != nil {
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

// rules reports whether the value is a list of requirements, each of which says
// of what type it is, and nothing that requirements do not.
func rules(raw json.RawMessage) bool {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || len(list) > maxRules {
		return false
	}
	for _, r := range list {
		members, ok := object(r)
		var kind string
		if !ok || json.Unmarshal(members["type"], &kind) != nil || !slices.Contains(types, kind) || !requirement(r) {
			return false
		}
	}
	return true
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
