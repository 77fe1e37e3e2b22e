// Package strictjson reads JSON objects whose meaning must not depend on who
// reads them: policies, key packets, signature payloads.
//
// encoding/json lets a later duplicate member win, matches names without
// regard to case, and ignores what follows the document where one uses a
// Decoder. Two programs can then read one signed document in two ways. Here
// duplicates at any depth and trailing bytes are errors, names match exactly,
// and a reader can insist that no member was left unread.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nesting; nothing that this project reads is deeper than 12.
const maxDepth = 64

// An Object is one JSON object whose members have not all been read yet.
type Object struct {
	members map[string]json.RawMessage
	names   []string // all names, as parsed
}

// Parse reads exactly one JSON object.
func Parse(raw []byte) (*Object, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := walk(dec, 0); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the end of the document")
	}
	o := &Object{}
	if err := json.Unmarshal(raw, &o.members); err != nil {
		return nil, fmt.Errorf("not an object: %w", err)
	}
	if o.members == nil {
		return nil, errors.New("not an object")
	}
	for n := range o.members {
		o.names = append(o.names, n)
	}
	slices.Sort(o.names)
	return o, nil
}

// walk reads one value and fails on a duplicate member anywhere inside it.
func walk(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	tok, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			name, err := dec.Token()
			if err != nil {
				return noEOF(err)
			}
			key, _ := name.(string) // the decoder accepts nothing else here
			if seen[key] {
				return fmt.Errorf("duplicate member %.40q", key)
			}
			seen[key] = true
		}
		if err := walk(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing delimiter
	return noEOF(err)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Take decodes the member of exactly this name into v and marks it as read.
// It reports false, and leaves v alone, if the member is absent.
func (o *Object) Take(name string, v any) (bool, error) {
	raw, ok := o.members[name]
	if !ok {
		return false, nil
	}
	delete(o.members, name)
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("member %q: %w", name, err)
	}
	return true, nil
}

// Object takes a member that is itself an object; nil if it is absent.
func (o *Object) Object(name string) (*Object, error) {
	var raw json.RawMessage
	if ok, err := o.Take(name, &raw); !ok || err != nil {
		return nil, err
	}
	inner, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("member %q: %w", name, err)
	}
	return inner, nil
}

// Names returns the names of all members, sorted.
func (o *Object) Names() []string { return o.names }

// HasFold reports whether a member has this name in any mixture of cases, as
// encoding/json would match it.
func (o *Object) HasFold(name string) bool {
	return slices.ContainsFunc(o.names, func(n string) bool { return strings.EqualFold(n, name) })
}

// Done fails if a member was not taken.
func (o *Object) Done() error {
	for _, n := range o.names {
		if _, left := o.members[n]; left {
			return fmt.Errorf("unknown member %.40q", n)
		}
	}
	return nil
}
