package attestation

import (
	"bytes"
	"encoding/json"
	"regexp"

	"github.com/pelletier/go-toml/v2"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

var policyData = regexp.MustCompile(`policy_data\s*:=\s*\{`)

// initDataClaims turns init-data into the claims that policies read
// (kbs-protocol 9.4): aa.toml and cdh.toml as objects where they parse, and
// the data of a generated agent policy in place of its text.
func initDataClaims(doc *initdata.Document) map[string]any {
	out := map[string]any{}
	for name, text := range doc.Data() {
		out[name] = text
		switch name {
		case "aa.toml", "cdh.toml":
			if v, ok := tomlObject(text); ok {
				out[name] = v
			}
		case "policy.rego":
			if v, ok := agentPolicyData(text); ok {
				delete(out, name)
				out["agent_policy_claims"] = v
			}
		}
	}
	return out
}

// tomlObject returns a TOML document as JSON would hold it: a value that JSON
// does not know (nan, inf) makes it stay text.
func tomlObject(text string) (json.RawMessage, bool) {
	var v map[string]any
	if toml.Unmarshal([]byte(text), &v) != nil {
		return nil, false
	}
	raw, err := json.Marshal(v)
	return raw, err == nil
}

// agentPolicyData returns the object that begins at "policy_data := {" and
// ends with the file.
func agentPolicyData(text string) (json.RawMessage, bool) {
	at := policyData.FindStringIndex(text)
	if at == nil {
		return nil, false
	}
	raw := bytes.TrimSpace([]byte(text[at[1]-1:]))
	if strictjson.Check(raw) != nil {
		return nil, false
	}
	return raw, true
}
