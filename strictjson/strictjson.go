// Package strictjson reads JSON from strangers.
//
// encoding/json takes the last of two members with the same name, matches
// names without regard to case and leaves what follows the value to its
// caller. Each lets two readers of one text see different things: what was
// hashed and what was obeyed, what was signed and what was followed. This
// package refuses such texts.
//
// It looks at every byte once and allocates next to nothing, because evidence
// is a list of thousands of numbers and each handshake brings one.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxDepth limits nesting. No message of the protocols nests deeper than
// twelve.
const MaxDepth = 64

// ErrSyntax is returned for every text that is refused.
var ErrSyntax = errors.New("malformed JSON")

// Decode checks exactly one JSON value and reads it into v. Members that v
// does not know are ignored, as the field's protocols want it.
func Decode(raw []byte, v any) error {
	if err := Check(raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

// Check refuses invalid UTF-8, member names that are repeated at any depth,
// also where they differ only in case, nesting beyond [MaxDepth], and data
// after the value.
func Check(raw []byte) error { return check(raw, true) }

// CheckExact is [Check] for texts whose names are read exactly: two that
// differ in case are two.
func CheckExact(raw []byte) error { return check(raw, false) }

func check(raw []byte, fold bool) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	s := scanner{raw: raw, fold: fold}
	if err := s.document(); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

// Members checks exactly one JSON object, as [CheckExact] does, and returns
// its members: slices of raw, under their exact names.
func Members(raw []byte) (map[string]json.RawMessage, error) { return members(raw, false) }

// CheckedMembers is [Members] for texts that encoding/json reads in parts: it
// refuses what [Check] does.
func CheckedMembers(raw []byte) (map[string]json.RawMessage, error) { return members(raw, true) }

func members(raw []byte, fold bool) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	s := scanner{raw: raw, fold: fold}
	return s.members()
}

// Each is [Members] without a map: it tells the members one by one. What was told
// counts only if there is no error: the text may be wrong further on.
func Each(raw []byte, member func(name, value []byte)) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	s := scanner{raw: raw, member: member}
	return s.outermost()
}

// EachInner is [Inner] without a map.
func EachInner(raw []byte, member func(name, value []byte)) error {
	s := scanner{raw: raw, checked: true, member: member}
	return s.outermost()
}

// Inner returns the members of an object that is part of a text which has been
// checked, such as a member of [Members]. It skips lists of numbers without
// looking at them. What it makes of a text that nobody checked is undefined,
// but no member of the result reaches outside of raw.
func Inner(raw []byte) (map[string]json.RawMessage, error) {
	s := scanner{raw: raw, checked: true}
	return s.members()
}

// Text returns what a string says that is part of a text which has been checked,
// such as a member of [Members]. Where nothing in it is escaped, as in hex and
// base64, it shares the memory of raw.
func Text(raw json.RawMessage) ([]byte, error) {
	last := len(raw) - 1
	if last < 1 || raw[0] != '"' || raw[last] != '"' {
		return nil, fmt.Errorf("%w: not a string", ErrSyntax)
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1:last:last], nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return []byte(text), nil
}

func (s *scanner) members() (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	s.member = func(name, value []byte) { members[string(name)] = value }
	if err := s.outermost(); err != nil {
		return nil, err
	}
	return members, nil
}

func (s *scanner) outermost() error {
	s.space()
	if s.peek() != '{' {
		return fmt.Errorf("%w: not an object", ErrSyntax)
	}
	if err := s.document(); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}
