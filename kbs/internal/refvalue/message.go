package refvalue

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MessageVersion is the version of the RVPS message (kbs-protocol 12.1).
const MessageVersion = "0.1.0"

// Limits of one message.
const (
	MaxMessage       = 4 << 20 // bytes
	MaxMessageValues = 4096
)

var (
	// ErrMessage says that an RVPS message is malformed.
	ErrMessage = errors.New("refvalue: malformed RVPS message")
	// ErrMessageType says that a message is of a version or type that is not
	// supported here.
	ErrMessageType = errors.New("refvalue: unsupported RVPS message")
)

// ParseRVPSMessage reads the body of POST /kbs/v0/reference-value and returns
// the values in it, in its order. Only the type "sample" is supported, whose
// payload is the standard base64 of a JSON object from name to value
// (kbs-protocol 12.1). Registration overwrites, so each value asks for
// store.Any; expiry, author and time are left to the caller and to Put.
func ParseRVPSMessage(body []byte) ([]api.RefValue, error) {
	if len(body) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMessage, len(body), MaxMessage)
	}
	var m struct {
		Version *string `json:"version"`
		Type    string  `json:"type"`
		Payload string  `json:"payload"`
	}
	if err := strictjson.Decode(body, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if m.Version != nil && *m.Version != MessageVersion {
		return nil, fmt.Errorf("%w: version %.32q, want %q", ErrMessageType, *m.Version, MessageVersion)
	}
	if m.Type != "sample" {
		return nil, fmt.Errorf("%w: type %.32q; the one supported here is \"sample\"", ErrMessageType, m.Type)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(m.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: payload: %w", ErrMessage, err)
	}
	return parseSample(payload)
}

// parseSample reads an object member by member: json.Unmarshal into a map would
// take the last of two members of one name, and lose the order.
func parseSample(payload []byte) ([]api.RefValue, error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: payload is not a JSON object", ErrMessage)
	}
	var out []api.RefValue
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: payload: %w", ErrMessage, err)
		}
		name, ok := t.(string)
		if !ok || !nameForm.MatchString(name) {
			return nil, fmt.Errorf("%w: member %d: %w", ErrMessage, len(out), ErrName)
		}
		if seen[name] {
			return nil, fmt.Errorf("%w: %q is there twice", ErrMessage, name)
		}
		seen[name] = true
		if len(out) == MaxMessageValues {
			return nil, fmt.Errorf("%w: more than %d values", ErrMessage, MaxMessageValues)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("%w: value of %q: %w", ErrMessage, name, err)
		}
		if err := checkValue(raw); err != nil {
			return nil, fmt.Errorf("%w: value of %q: %w", ErrMessage, name, err)
		}
		out = append(out, api.RefValue{Name: name, Version: int64(store.Any), Value: raw})
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, fmt.Errorf("%w: payload: %w", ErrMessage, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: data after the payload's object", ErrMessage)
	}
	return out, nil
}
