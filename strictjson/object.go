package strictjson

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An Object is one JSON object whose members have not all been read yet. It is
// for documents in which an unknown member may not be skipped: policies, key
// packets, what a signature covers.
type Object struct {
	members map[string]json.RawMessage
	names   []string // all names, as parsed
}

// Parse reads exactly one JSON object. Names are exact.
func Parse(raw []byte) (*Object, error) {
	m, err := Members(raw)
	if err != nil {
		return nil, err
	}
	return &Object{members: m, names: slices.Sorted(maps.Keys(m))}, nil
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
