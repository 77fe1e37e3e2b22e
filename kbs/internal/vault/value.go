package vault

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
)

// Base64 is what the member "encoding" of a secret says where its value is in
// base64, as the broker writes it.
const Base64 = "base64"

// Value reads the value of a secret in a KV engine from one of its members.
// Secrets of other authors are read as the field's brokers read them
// (kbs-protocol 8.1): a text stands for its bytes, a list of numbers for bytes,
// and anything else for its JSON. The errors quote none of it.
func Value(raw, encoding json.RawMessage) ([]byte, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		if string(encoding) != `"`+Base64+`"` {
			return []byte(text), nil
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, errors.New("its value is not the base64 that it claims to be")
		}
		return b, nil
	}
	var numbers []uint8
	var list []json.Number
	if json.Unmarshal(raw, &list) == nil {
		for _, n := range list {
			v, err := strconv.ParseUint(n.String(), 10, 8)
			if err != nil {
				numbers = nil
				break
			}
			numbers = append(numbers, uint8(v))
		}
		if numbers != nil {
			return numbers, nil
		}
	}
	return append([]byte(nil), raw...), nil
}
