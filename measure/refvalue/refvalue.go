// Package refvalue writes and reads documents of reference values: what good
// evidence is expected to show, in a form that travels from who builds a guest
// to who verifies it, with a signature.
//
// The form is CoRIM (draft-ietf-rats-corim): CBOR, signed with COSE. Values
// that verification policies ask for by name are any JSON, which CoRIM's own
// measurement types do not hold; under [Profile] a measurement carries the
// policy's name and the JSON itself, so nothing is lost on the way. CoRIMs of
// other makers are read as the field's reference value provider names their
// values (kbs-protocol 12.1).
package refvalue

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"
)

// Profile says that a CoRIM's measurements are named JSON values: mval.name is
// the name, mval.raw-value the JSON text.
const Profile = "https://github.com/vouchsafe-cc/vouchsafe/corim/1"

// Limits of a document.
const (
	MaxSize   = 4 << 20 // bytes
	MaxValues = 4096
	MaxValue  = 64 << 10 // bytes of one value
)

// ErrDocument says that a document is malformed or means nothing here.
var ErrDocument = errors.New("malformed document of reference values")

// Document is a set of reference values that belong together, for example all
// of one guest image.
type Document struct {
	ID string
	// Profile is empty for documents of makers that follow none.
	Profile string
	// NotBefore and NotAfter bound the life of the values; zero says nothing.
	NotBefore, NotAfter time.Time
	Values              []Value
	// Provenance is what the values were made from. It says where they come
	// from to a person who asks; no policy reads it.
	Provenance []Source
}

// Source is a file that reference values were predicted from.
type Source struct {
	Name   string // for example kernel
	SHA256 []byte
}

// Value is one of them. Its JSON is kept byte for byte.
type Value struct {
	Name  string
	Value json.RawMessage
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,256}$`)

// validate checks what every document must satisfy, written or read.
func (d Document) validate() error {
	switch {
	case d.ID == "" || len(d.ID) > 256 || !utf8.ValidString(d.ID):
		return fmt.Errorf("%w: the id must be 1 to 256 bytes of text", ErrDocument)
	case len(d.Values) == 0 || len(d.Values) > MaxValues:
		return fmt.Errorf("%w: %d values, must be 1 to %d", ErrDocument, len(d.Values), MaxValues)
	case !d.NotBefore.IsZero() && !d.NotAfter.IsZero() && d.NotAfter.Before(d.NotBefore):
		return fmt.Errorf("%w: it ends before it begins", ErrDocument)
	}
	for _, p := range d.Provenance {
		if !nameForm.MatchString(p.Name) || len(p.SHA256) != sha256.Size {
			return fmt.Errorf("%w: source %.80q", ErrDocument, p.Name)
		}
	}
	seen := map[string]bool{}
	for _, v := range d.Values {
		switch {
		case !nameForm.MatchString(v.Name):
			return fmt.Errorf("%w: %.80q cannot name a value", ErrDocument, v.Name)
		case seen[v.Name]:
			return fmt.Errorf("%w: %s is there twice", ErrDocument, v.Name)
		case len(v.Value) > MaxValue || !json.Valid(v.Value) || !utf8.Valid(v.Value):
			return fmt.Errorf("%w: the value of %s is not JSON of at most %d bytes", ErrDocument, v.Name, MaxValue)
		}
		seen[v.Name] = true
	}
	return nil
}
