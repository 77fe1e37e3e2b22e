package strictjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// scanner walks over one text (RFC 8259), which must be valid UTF-8.
type scanner struct {
	raw   []byte
	pos   int
	fold  bool // names that differ only in case are the same
	depth int
	// checked says that the text is part of one that was read before.
	checked bool
	// member, if set, is told the members of the outermost object.
	member func(name, value []byte)
}

func (s *scanner) document() error {
	if err := s.value(); err != nil {
		return err
	}
	if s.space(); s.pos != len(s.raw) {
		return errors.New("data after the end of the document")
	}
	return nil
}

// peek returns the next byte, 0 at the end: no JSON has a bare NUL.
func (s *scanner) peek() byte {
	if s.pos < len(s.raw) {
		return s.raw[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.raw) {
		switch s.raw[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) unexpected() error {
	if s.pos >= len(s.raw) {
		return errors.New("it ends too early")
	}
	return fmt.Errorf("unexpected character at byte %d", s.pos)
}

func (s *scanner) value() error {
	s.space()
	switch c := s.peek(); {
	case c == '{':
		return s.nested((*scanner).object)
	case c == '[':
		return s.nested((*scanner).array)
	case c == '"':
		_, _, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return s.unexpected()
}

func (s *scanner) nested(read func(*scanner) error) error {
	if s.depth == MaxDepth {
		return fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	s.depth++
	s.pos++ // the opening delimiter
	err := read(s)
	s.depth--
	return err
}

func (s *scanner) array() error {
	if s.checked && s.flat() {
		return nil
	}
	if s.space(); s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		s.small()
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.unexpected()
		}
	}
}

// flat skips a list in which there are no texts, lists and objects.
func (s *scanner) flat() bool {
	rest := s.raw[s.pos:]
	end := bytes.IndexByte(rest, ']')
	if end < 0 || bytes.IndexByte(rest[:end], '"') >= 0 || bytes.IndexByte(rest[:end], '[') >= 0 || bytes.IndexByte(rest[:end], '{') >= 0 {
		return false
	}
	s.pos += end + 1
	return true
}

// small skips numbers of up to three digits that are followed by a comma and
// nothing else: what bytes look like that were written as a list, which is
// most of what evidence consists of.
func (s *scanner) small() {
	raw, pos := s.raw, s.pos
	for pos+3 < len(raw) && raw[pos]-'0' <= 9 {
		n := 1
		for n < 3 && raw[pos+n]-'0' <= 9 {
			n++
		}
		if raw[pos+n] != ',' || n > 1 && raw[pos] == '0' {
			break
		}
		pos += n + 1
	}
	s.pos = pos
}

func (s *scanner) object() error {
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil
	}
	seen := names{fold: s.fold}
	for {
		if s.space(); s.peek() != '"' {
			return s.unexpected()
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return fmt.Errorf("duplicate member %.40q", name)
		}
		if s.space(); s.peek() != ':' {
			return s.unexpected()
		}
		s.pos++
		s.space()
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		if s.member != nil && s.depth == 1 {
			s.member(name, s.raw[start:s.pos:s.pos])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.unexpected()
		}
	}
}

// name reads a member's name, without its escapes.
func (s *scanner) name() ([]byte, error) {
	quoted, escaped, err := s.text()
	if err != nil {
		return nil, err
	}
	if !escaped {
		return quoted[1 : len(quoted)-1], nil
	}
	var plain string
	if err := json.Unmarshal(quoted, &plain); err != nil {
		return nil, err
	}
	return []byte(plain), nil
}

// text reads a string and returns it with its quotes, and whether it has an
// escape.
func (s *scanner) text() (quoted []byte, escaped bool, err error) {
	start := s.pos
	for s.pos++; s.pos < len(s.raw); s.pos++ {
		s.pos += plain(s.raw[s.pos:])
		if s.pos == len(s.raw) {
			break
		}
		switch c := s.raw[s.pos]; {
		case c == '"':
			s.pos++
			return s.raw[start:s.pos], escaped, nil
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return nil, false, err
			}
		case c < ' ':
			return nil, false, s.unexpected()
		}
	}
	return nil, false, s.unexpected()
}

// plain returns how many bytes at the start of a text mean themselves. It may
// stop early, at less than eight bytes before the end. Texts are most of what
// evidence consists of, so eight bytes are looked at in one step.
func plain(text []byte) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for n := 0; ; n += 8 {
		if len(text)-n < 8 {
			return n
		}
		w := binary.LittleEndian.Uint64(text[n:])
		quote, backslash := w^'"'*low, w^'\\'*low
		// A byte's high bit is set where it is zero, and in w where it is a control.
		// A borrow can set it in a later byte wrongly, never in an earlier one.
		special := ((quote-low)&^quote | (backslash-low)&^backslash | (w-' '*low)&^w) & high
		if special != 0 {
			return n + bits.TrailingZeros64(special)/8
		}
	}
}

// escape stands on a backslash and goes to the last byte of what it escapes.
func (s *scanner) escape() error {
	s.pos++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.pos++
			if c := s.peek(); (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return s.unexpected()
			}
		}
		return nil
	}
	return s.unexpected()
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return s.unexpected()
	}
	if s.peek() == '.' {
		if s.pos++; !s.digits() {
			return s.unexpected()
		}
	}
	if s.peek()|0x20 == 'e' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.unexpected()
		}
	}
	return nil
}

// digits reads at least one.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.raw) && s.raw[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) word(w string) error {
	for i := range len(w) {
		if s.peek() != w[i] {
			return s.unexpected()
		}
		s.pos++
	}
	return nil
}
