package jsonstream

import (
	"errors"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Reader reads a text as a stream, without its quotes and escapes. The caller
// reads it to its end before he asks the scanner for anything else.
func (s *Scanner) Reader() (io.Reader, error) {
	if err := s.space(); err != nil {
		return nil, err
	}
	if err := s.expect('"'); err != nil {
		return nil, err
	}
	s.open = &body{s: s}
	return s.open, nil
}

// body is what stands between two quotes.
type body struct {
	s       *Scanner
	pending []byte // of an escape
	err     error  // sticky
}

func (b *body) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 {
		if len(b.pending) > 0 {
			n = copy(p, b.pending)
			b.pending = b.pending[n:]
			break
		}
		if b.err != nil {
			return 0, b.err
		}
		n, b.err = b.some(p)
	}
	return n, nil
}

// some reads what is in the buffer, up to the next byte that means something
// else, or that byte.
func (b *body) some(p []byte) (int, error) {
	c, err := b.s.peek() // fills the buffer
	if err != nil {
		return 0, err
	}
	switch {
	case c == '"':
		b.s.open = nil
		if err := b.s.take(1); err != nil {
			return 0, err
		}
		return 0, io.EOF
	case c == '\\':
		b.pending, err = b.s.escape()
		return 0, err
	case c < ' ':
		return 0, b.s.unexpected()
	}
	there, _ := b.s.r.Peek(min(b.s.r.Buffered(), len(p)))
	n := 0
	for n < len(there) && there[n] >= ' ' && there[n] != '"' && there[n] != '\\' {
		n++
	}
	copy(p, there[:n])
	return n, b.s.take(n)
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads an escape, and returns what it stands for.
func (s *Scanner) escape() ([]byte, error) {
	if err := s.take(1); err != nil {
		return nil, err
	}
	c, err := s.next()
	if err != nil {
		return nil, err
	}
	if plain, ok := escapes[c]; ok {
		return []byte{plain}, nil
	}
	if c != 'u' {
		return nil, s.unexpected()
	}
	four, err := s.r.Peek(4)
	first, ok := hex(four)
	if !ok {
		return nil, errors.Join(s.unexpected(), cut(err))
	}
	if err := s.take(4); err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(first) { // one without its half stands for nothing, as encoding/json has it
		six, _ := s.r.Peek(6)
		whole := rune(utf8.RuneError)
		if len(six) == 6 && six[0] == '\\' && six[1] == 'u' {
			if second, ok := hex(six[2:]); ok {
				whole = utf16.DecodeRune(first, second)
			}
		}
		if first = whole; whole != utf8.RuneError {
			if err := s.take(6); err != nil {
				return nil, err
			}
		}
	}
	return utf8.AppendRune(nil, first), nil
}

func hex(four []byte) (rune, bool) {
	if len(four) != 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(four), 16, 16)
	return rune(n), err == nil && four[0] != '+' && four[0] != '-'
}
