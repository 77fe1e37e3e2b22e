package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// NoExtraParams returns the extra-params of a message that has none: the empty
// string, because the member itself is required (section 3.1).
func NoExtraParams() json.RawMessage { return json.RawMessage(`""`) }

// ParseExtraParams reads the extra-params of a Request or Challenge. The empty
// string, null and an absent value mean none; anything but an object otherwise
// is an error, as is a member of the wrong type. Unknown members are ignored.
func ParseExtraParams(raw json.RawMessage) (ExtraParams, error) {
	var p ExtraParams
	text := bytes.TrimSpace(raw)
	if len(text) == 0 || string(text) == `""` || string(text) == "null" {
		return p, nil
	}
	if text[0] != '{' {
		return p, errors.New("extra-params is neither an empty string nor an object")
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return ExtraParams{}, fmt.Errorf("extra-params: %w", err)
	}
	return p, nil
}

// Raw returns p as a message carries it; [NoExtraParams] if p is empty.
func (p ExtraParams) Raw() (json.RawMessage, error) {
	if len(p.SupportedHashAlgorithms) == 0 && p.SelectedHashAlgorithm == "" && p.AttestationPolicySelector == "" {
		return NoExtraParams(), nil
	}
	return json.Marshal(p)
}
