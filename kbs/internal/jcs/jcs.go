// Package jcs writes canonical JSON (RFC 8785), the form in which the KBS
// protocol hashes runtime data (kbs-protocol 0 and 3.5) and in which the audit
// log hashes its leaves.
//
// It wraps one library once, so that every caller gets the same limits: the
// texts come from guests that nobody trusts yet.
package jcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gowebpki/jcs"
)

// Limits of what is accepted. The evidence of a guest with many devices is a
// few MiB of text inside one string, and nothing nests deeply.
const (
	MaxBytes = 16 << 20 // length of the input, in bytes
	MaxDepth = 64       // arrays and objects inside each other
)

// Errors of [Transform] that callers may tell apart.
var (
	ErrTooLarge = errors.New("jcs: text is too long")
	ErrTooDeep  = errors.New("jcs: nesting is too deep")
)

// Transform returns the canonical form of one JSON text. It refuses anything
// that RFC 8785 (section 3.1) does not admit: duplicate member names, invalid
// UTF-8, lone surrogates, trailing data. Numbers become IEEE 754 doubles as
// that RFC demands, so integers beyond 2^53 must travel as strings.
func Transform(raw []byte) ([]byte, error) {
	if len(raw) > MaxBytes {
		return nil, ErrTooLarge
	}
	if depth(raw) > MaxDepth {
		return nil, ErrTooDeep
	}
	if len(raw) == 0 {
		return nil, errors.New("jcs: empty text")
	}
	out, err := jcs.Transform(raw)
	if err != nil {
		return nil, fmt.Errorf("jcs: %w", err)
	}
	return out, nil
}

// Marshal encodes v with encoding/json and returns the canonical form. Strings
// in v must be valid UTF-8: encoding/json replaces what is not, and the digest
// would then cover another text than the caller meant.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("jcs: %w", err)
	}
	return Transform(b.Bytes())
}

// depth returns the deepest nesting of a text, without parsing it: brackets
// inside strings do not count.
func depth(raw []byte) int {
	var open, deepest int
	var inString, escaped bool
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			open++
			deepest = max(deepest, open)
		case c == '}' || c == ']':
			open--
		}
	}
	return deepest
}
