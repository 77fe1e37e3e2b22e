package outline

import "encoding/json"

// A shape reports whether a value is one that a member of a policy has.
type shape func(json.RawMessage) bool

// requirement is the shape of a requirement of any type: the members of
// containers-policy.json(5), also those that package trust refuses, and ours.
var requirement = members(map[string]shape{
	"type": plain, "threshold": plain, "annotations": texts, "atLeast": texts,
	"signedIdentity": members(map[string]shape{
		"type": plain, "dockerReference": plain, "dockerRepository": plain, "prefix": plain, "signedPrefix": plain,
	}),
	// Keys: where they are, or public ones.
	"keyType": plain, "keyPath": plain, "keyPaths": plain, "keyData": plain, "keyDatas": plain,
	// Sigstore's logs, authorities and identities.
	"trustedRootPath": plain, "trustedRootData": plain,
	"rekorPublicKeyPath": plain, "rekorPublicKeyPaths": plain, "rekorPublicKeyData": plain, "rekorPublicKeyDatas": plain,
	"fulcio": members(map[string]shape{"caPath": plain, "caData": plain, "oidcIssuer": plain, "subjectEmail": plain}),
	"pki": members(map[string]shape{
		"caRootsPath": plain, "caRootsData": plain, "caIntermediatesPath": plain, "caIntermediatesData": plain,
		"subjectEmail": plain, "subjectHostname": plain,
	}),
	"identities": list(members(map[string]shape{"issuer": plain, "issuerRegExp": plain, "subject": plain, "subjectRegExp": plain})),
	// What was attested.
	"predicateType": plain,
	"where":         list(condition),
	// The Notary Project's authorities and identities.
	"caPath": plain, "caPaths": plain, "caData": plain, "caDatas": plain, "tsaPath": plain, "tsaData": plain,
	"trustedIdentities": plain, "insecureAnyIdentity": plain, "insecureIgnoreRevocation": plain,
})

// condition is the shape of a condition, which may be about others. How deep they
// nest was seen to when the text was read.
func condition(raw json.RawMessage) bool {
	return members(map[string]shape{
		"at": plain, "is": plain, "oneOf": plain, "matches": plain, "atLeast": plain, "atMost": plain, "exists": plain,
		"any": list(condition), "all": list(condition), "none": list(condition),
	})(raw)
}

// members is an object that has some of these members, and no others.
func members(shapes map[string]shape) shape {
	return func(raw json.RawMessage) bool {
		all, ok := object(raw)
		for name, value := range all {
			is := shapes[name]
			if is == nil || !is(value) {
				return false
			}
		}
		return ok
	}
}

// list is a list of values of one shape.
func list(is shape) shape {
	return func(raw json.RawMessage) bool {
		var all []json.RawMessage
		if json.Unmarshal(raw, &all) != nil {
			return false
		}
		for _, value := range all {
			if !is(value) {
				return false
			}
		}
		return true
	}
}

// plain is a text, a number, a flag, or a list of texts.
func plain(raw json.RawMessage) bool {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return false
	}
	switch v := v.(type) {
	case string, float64, bool:
		return true
	case []any:
		for _, one := range v {
			if _, ok := one.(string); !ok {
				return false
			}
		}
		return true
	}
	return false
}

// texts is an object whose members are texts, under names of the author's choice.
func texts(raw json.RawMessage) bool {
	var m map[string]string
	return json.Unmarshal(raw, &m) == nil && m != nil
}
