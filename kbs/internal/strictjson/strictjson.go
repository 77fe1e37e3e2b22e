// Package strictjson decodes JSON from strangers.
//
// encoding/json takes the last of two members with the same name, matches
// names without regard to case and leaves what follows the value to its
// caller. Each lets two readers of one text see different things: what was
// hashed and what was obeyed. This package refuses such texts.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// maxDepth limits nesting. No message of the protocol nests deeper than ten.
const maxDepth = 64

// ErrSyntax is returned for every text that is refused.
var ErrSyntax = errors.New("malformed JSON")

// Decode reads exactly one JSON value into v. Members that v does not know are
// ignored, as the field's protocol wants it.
func Decode(raw []byte, v any) error {
	if err := Check(raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

// Check refuses invalid UTF-8, repeated member names (also those that differ
// only in case), excessive depth and trailing data.
func Check(raw []byte) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := value(d, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: data after the value", ErrSyntax)
	}
	return nil
}

func value(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	delim, isDelim := t.(json.Delim)
	if !isDelim {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			folded := fold(name.(string))
			if seen[folded] {
				return errors.New("a member name is repeated")
			}
			seen[folded] = true
		}
		if err := value(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing delimiter
	return err
}

// fold maps names that encoding/json would take for the same to one text.
func fold(s string) string {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		out = append(out, least)
	}
	return string(out)
}
