package cca

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MaxEvidenceSize bounds evidence, in bytes of JSON: a token as a list of
// numbers, up to four characters each.
const MaxEvidenceSize = 4*MaxTokenSize + 1024

// ParseEvidence reads the wire form of kbs-protocol 16.7: {"token": [bytes]}.
func ParseEvidence(ev measure.Evidence) (*Token, error) {
	if ev.Platform != measure.CCA {
		return nil, fmt.Errorf("evidence of platform %q given to the CCA parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("CCA evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	members, err := strictjson.Members(ev.Data)
	if err != nil {
		return nil, fmt.Errorf("CCA evidence: %w", err)
	}
	// As numbers of 16 bits: into bytes, the json package would read base64.
	var numbers []uint16
	if err := json.Unmarshal(members["token"], &numbers); err != nil {
		return nil, errors.New("CCA evidence: token is not a list of bytes")
	}
	raw := make([]byte, len(numbers))
	for i, n := range numbers {
		if n > 255 {
			return nil, errors.New("CCA evidence: token is not a list of bytes")
		}
		raw[i] = byte(n)
	}
	t, err := ParseToken(raw)
	if err != nil {
		return nil, fmt.Errorf("CCA evidence: %w", err)
	}
	return t, nil
}

// Wire returns a token in the form that ParseEvidence reads.
func Wire(token []byte) (measure.Evidence, error) {
	numbers := make([]uint16, len(token))
	for i, b := range token {
		numbers[i] = uint16(b)
	}
	data, err := json.Marshal(struct {
		Token []uint16 `json:"token"`
	}{numbers})
	return measure.Evidence{Platform: measure.CCA, Data: data}, err
}
