package jsonstream

import (
	"bytes"
	"errors"
	"fmt"
)

// Carve reads a whole document and has visit read the value at a path of names;
// found is false if there is none. The rest of the document is returned, at most
// room bytes of it, with instead in that value's place: what it says is for others
// to judge, and that no name in it stands twice.
func (s *Scanner) Carve(path []string, instead string, room int, visit func() error) (rest []byte, found bool, err error) {
	if len(path) == 0 {
		return nil, false, errors.New("no path")
	}
	c := carving{s: s, instead: instead, visit: visit}
	s.keep, s.room = &bytes.Buffer{}, room
	defer func() { s.keep = nil }()
	if err := c.at(path); err != nil {
		return nil, c.found, err
	}
	return s.keep.Bytes(), c.found, s.End()
}

type carving struct {
	s       *Scanner
	instead string
	visit   func() error
	found   bool
}

func (c *carving) at(path []string) error {
	kind, err := c.s.Kind()
	if err != nil {
		return err
	}
	if kind != Object {
		return c.s.Skip()
	}
	seen := false
	return c.s.Object(func(name string) error {
		if name != path[0] {
			return c.s.Skip()
		}
		if seen {
			return fmt.Errorf("%w: duplicate member %.40q", ErrSyntax, name)
		}
		seen = true
		if len(path) > 1 {
			return c.at(path[1:])
		}
		return c.value()
	})
}

// value has the value read that was looked for.
func (c *carving) value() error {
	if _, err := c.s.Kind(); err != nil {
		return err
	}
	c.found = true
	keep := c.s.keep
	c.s.keep = nil
	err := c.visit()
	c.s.keep = keep
	keep.WriteString(c.instead)
	return err
}
