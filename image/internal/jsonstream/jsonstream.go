// Package jsonstream reads JSON documents that are too large to be held: what the
// caller does not ask for passes through a buffer of a few KiB and is gone.
//
// It is for documents whose bytes are vouched for as a whole, and of which a few
// values matter. It refuses what is no JSON (RFC 8259) as far as it reads, and
// nesting deeper than [strictjson.MaxDepth]. Unlike strictjson it cannot know
// whether a name stood in an object before: who looks for a name sees to it, and
// what [Scanner.Carve] leaves is small enough for strictjson.
package jsonstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MaxName is how many bytes of a name are told. One that is longer is cut to one
// more than that, so that it equals none that is not.
const MaxName = 1024

const (
	bufferSize = 16 << 10
	maxNumber  = 64 // bytes of one that is told
)

// A Kind is what a value is.
type Kind byte

// The kinds of values.
const (
	Object Kind = '{'
	Array  Kind = '['
	Text   Kind = '"'
	Number Kind = '0'
	True   Kind = 't'
	False  Kind = 'f'
	Null   Kind = 'n'
)

// ErrSyntax is what every document is refused for that is no JSON, and ErrRoom is
// for one of which too much would have to be kept.
var (
	ErrSyntax = errors.New("malformed JSON")
	ErrRoom   = errors.New("too much beside the value that is looked for")
)

// A Scanner reads one document from front to back. Each value is read by exactly
// one of Object, Array, Scalar, Reader and Skip. Errors are of [ErrSyntax], of
// [ErrRoom], of the caller's functions, or of what is read from.
type Scanner struct {
	r     *bufio.Reader
	at    int64
	depth int
	keep  *bytes.Buffer // gets what is read; nil: nothing does
	room  int           // bytes of keep
	open  *body         // the text that a caller reads
	chunk [512]byte     // of a text
}

// New returns a scanner at the beginning of a document.
func New(r io.Reader) *Scanner { return &Scanner{r: bufio.NewReaderSize(r, bufferSize)} }

func (s *Scanner) unexpected() error {
	return fmt.Errorf("%w: unexpected character at byte %d", ErrSyntax, s.at)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends too early", ErrSyntax)
	}
	return err
}

// peek returns the next byte without taking it.
func (s *Scanner) peek() (byte, error) {
	b, err := s.r.Peek(1)
	if err != nil {
		return 0, cut(err)
	}
	return b[0], nil
}

// take takes n bytes that are in the buffer.
func (s *Scanner) take(n int) error {
	if s.keep != nil {
		if s.keep.Len()+n > s.room {
			return ErrRoom
		}
		b, _ := s.r.Peek(n)
		s.keep.Write(b)
	}
	_, err := s.r.Discard(n)
	s.at += int64(n)
	return err
}

// next takes one byte.
func (s *Scanner) next() (byte, error) {
	c, err := s.peek()
	if err == nil {
		err = s.take(1)
	}
	return c, err
}

func (s *Scanner) expect(want byte) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != want {
		return s.unexpected()
	}
	return s.take(1)
}

func (s *Scanner) space() error {
	for {
		c, err := s.peek()
		if err != nil {
			return err
		}
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return nil
		}
		if err := s.take(1); err != nil {
			return err
		}
	}
}

// Kind says what the next value is.
func (s *Scanner) Kind() (Kind, error) {
	if err := s.space(); err != nil {
		return 0, err
	}
	c, err := s.peek()
	if err != nil {
		return 0, err
	}
	switch c {
	case '{', '[', '"', 't', 'f', 'n':
		return Kind(c), nil
	}
	if c == '-' || c-'0' <= 9 {
		return Number, nil
	}
	return 0, s.unexpected()
}

// End reads what follows the document, which must be nothing but space.
func (s *Scanner) End() error {
	for {
		c, err := s.r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return fmt.Errorf("%w: data after the end of the document", ErrSyntax)
		}
	}
}

// Object reads an object. member reads the value of each member.
func (s *Scanner) Object(member func(name string) error) error {
	return s.items('{', '}', func() error {
		name, err := s.name(MaxName + 1)
		if err != nil {
			return err
		}
		return member(name)
	})
}

// name reads a name and the colon behind it.
func (s *Scanner) name(limit int) (string, error) {
	if err := s.space(); err != nil {
		return "", err
	}
	name, _, err := s.text(limit)
	if err != nil {
		return "", err
	}
	if err := s.space(); err != nil {
		return "", err
	}
	return name, s.expect(':')
}

// Array reads a list. element reads each of its elements.
func (s *Scanner) Array(element func(i int) error) error {
	i := -1
	return s.items('[', ']', func() error {
		i++
		return element(i)
	})
}

func (s *Scanner) items(begin, end byte, one func() error) error {
	if err := s.space(); err != nil {
		return err
	}
	if err := s.expect(begin); err != nil {
		return err
	}
	if s.depth++; s.depth > strictjson.MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrSyntax, strictjson.MaxDepth)
	}
	defer func() { s.depth-- }()
	if err := s.space(); err != nil {
		return err
	}
	if c, err := s.peek(); err != nil {
		return err
	} else if c == end {
		return s.take(1)
	}
	for {
		if err := one(); err != nil {
			return err
		}
		if s.open != nil {
			return errors.New("a text was not read to its end")
		}
		if err := s.space(); err != nil {
			return err
		}
		switch c, err := s.peek(); {
		case err != nil:
			return err
		case c != ',' && c != end:
			return s.unexpected()
		default:
			if err := s.take(1); err != nil || c == end {
				return err
			}
		}
	}
}

// Skip reads any value, and tells nothing of it.
func (s *Scanner) Skip() error {
	kind, err := s.Kind()
	if err != nil {
		return err
	}
	switch kind {
	case Object:
		return s.items('{', '}', func() error {
			if _, err := s.name(0); err != nil {
				return err
			}
			return s.Skip()
		})
	case Array:
		return s.items('[', ']', s.Skip)
	default:
		_, err := s.Scalar(0)
		return err
	}
}

// A Scalar is a text, a number, true, false or null.
type Scalar struct {
	Kind  Kind
	Text  string // of a text without quotes and escapes, of others as they are written
	Whole bool   // false: it is longer
}

// Scalar reads a value that is no list and no object. Of a text at most limit
// bytes are told.
func (s *Scanner) Scalar(limit int) (Scalar, error) {
	kind, err := s.Kind()
	if err != nil {
		return Scalar{}, err
	}
	v := Scalar{Kind: kind, Whole: true}
	switch kind {
	case Text:
		v.Text, v.Whole, err = s.text(limit)
	case Number:
		v.Text, v.Whole, err = s.number()
	case True, False, Null:
		v.Text, err = s.word(map[Kind]string{True: "true", False: "false", Null: "null"}[kind])
	case Object, Array:
		err = s.unexpected()
	}
	return v, err
}

func (s *Scanner) word(w string) (string, error) {
	for i := range len(w) {
		if err := s.expect(w[i]); err != nil {
			return "", err
		}
	}
	return w, nil
}

// text reads a text, of which it returns at most limit bytes.
func (s *Scanner) text(limit int) (text string, whole bool, err error) {
	r, err := s.Reader()
	if err != nil {
		return "", false, err
	}
	var kept []byte
	whole = true
	for {
		n, err := r.Read(s.chunk[:])
		room := limit - len(kept)
		whole = whole && n <= room
		kept = append(kept, s.chunk[:min(n, room)]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", false, err
		}
	}
	if whole && !utf8.Valid(kept) {
		return "", false, fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	return string(kept), whole, nil
}

// number reads a number (RFC 8259 section 6).
func (s *Scanner) number() (text string, whole bool, err error) {
	var kept []byte
	whole = true
	take := func(like string) (bool, error) {
		c, err := s.r.Peek(1)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if len(c) == 0 || bytes.IndexByte([]byte(like), c[0]) < 0 {
			return false, nil
		}
		if whole = len(kept) < maxNumber; whole {
			kept = append(kept, c[0])
		}
		return true, s.take(1)
	}
	digits := func() error {
		for n := 0; ; n++ {
			if ok, err := take("0123456789"); err != nil || !ok {
				if err == nil && n == 0 {
					err = s.unexpected()
				}
				return err
			}
		}
	}
	if _, err := take("-"); err != nil {
		return "", false, err
	}
	zero, err := take("0")
	if err == nil && !zero {
		err = digits()
	}
	for _, part := range []struct{ mark, sign string }{{".", ""}, {"eE", "+-"}} {
		if err != nil {
			return "", false, err
		}
		var there bool
		if there, err = take(part.mark); err != nil || !there {
			continue
		}
		if _, err = take(part.sign); err == nil {
			err = digits()
		}
	}
	return string(kept), whole, err
}
