// Package secret holds key material in the one type that cannot be printed.
//
// Every key, token and released resource in this project travels as [Bytes].
// fmt, slog, encoding/json, encoding/gob and text marshalling all refuse it or
// show a placeholder, whatever struct it sits in. The only way out is
// [Bytes.Reveal], so a reviewer finds every use of raw secret bytes by
// searching for that one word.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

const placeholder = "secret(redacted)"

// ErrMarshal is returned by every marshalling method of [Bytes].
var ErrMarshal = errors.New("secret: refusing to marshal")

// Bytes is a piece of secret material. The zero value is an empty secret.
//
// The bytes lie behind a pointer to a pointer, because fmt prints the fields
// of an unexported struct member without asking for its methods. Of a pointer
// to a slice it prints the address under %v, but the contents under a verb
// that does not fit ("%!s(*[]uint8=&[...])"); of a pointer to a pointer it
// never prints more than an address. Copies share the same bytes, so
// [Bytes.Destroy] on one clears them all.
type Bytes struct{ p *box }

type box *[]byte

// New takes ownership of b: the caller must not use b afterwards.
func New(b []byte) Bytes {
	inner := box(&b)
	return Bytes{p: &inner}
}

// Copy returns a secret with its own copy of b.
func Copy(b []byte) Bytes { return New(append([]byte(nil), b...)) }

// Random returns n bytes from the system's random generator.
func Random(n int) Bytes {
	b := make([]byte, n)
	rand.Read(b) // crypto/rand.Read never fails: it aborts the process instead
	return New(b)
}

// Reveal returns the bytes themselves, not a copy. It is the only way out.
func (s Bytes) Reveal() []byte {
	if s.p == nil {
		return nil
	}
	return **s.p
}

// Len returns the number of bytes.
func (s Bytes) Len() int { return len(s.Reveal()) }

// Equal compares in constant time (for equal lengths).
func (s Bytes) Equal(t Bytes) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1
}

// Destroy overwrites the bytes with zeros. Every copy of s becomes empty.
func (s Bytes) Destroy() {
	if s.p == nil {
		return
	}
	clear(**s.p)
	**s.p = nil
}

// String returns a placeholder.
func (Bytes) String() string { return placeholder }

// GoString returns a placeholder, for %#v.
func (Bytes) GoString() string { return placeholder }

// Format writes a placeholder for every verb, %x and %d among them.
func (Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(placeholder)) }

// LogValue returns a placeholder for slog.
func (Bytes) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalJSON refuses.
func (Bytes) MarshalJSON() ([]byte, error) { return nil, ErrMarshal }

// MarshalText refuses.
func (Bytes) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary refuses.
func (Bytes) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }

// GobEncode refuses.
func (Bytes) GobEncode() ([]byte, error) { return nil, ErrMarshal }
