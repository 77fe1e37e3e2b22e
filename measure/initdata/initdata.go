// Package initdata reads the init-data document: the configuration that the
// host hands to a guest and that the hardware evidence vouches for.
//
// The document is TOML, but what is measured is its text. So a [Document]
// keeps the bytes exactly as they came, and nothing here ever writes TOML.
// Sources: kbs-protocol 9.4, guest-protocol 5.
package initdata

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// MaxSize is the largest document accepted, in bytes.
const MaxSize = 4 << 20

// Version is the one version of the format that is known.
const Version = "0.1.0"

// ErrTooLarge is returned for a document of more than [MaxSize] bytes.
var ErrTooLarge = fmt.Errorf("init-data is larger than %d bytes", MaxSize)

// Document is a parsed init-data document. It does not change after Parse.
type Document struct {
	raw       []byte
	algorithm string
	data      map[string]string
}

// Parse reads a document (guest-protocol 5.1). The members version, algorithm
// and data are mandatory, and no others are allowed: what this parser would
// skip, another might obey.
func Parse(raw []byte) (*Document, error) {
	if len(raw) > MaxSize {
		return nil, ErrTooLarge
	}
	var d struct {
		Version   *string            `toml:"version"`
		Algorithm *string            `toml:"algorithm"`
		Data      *map[string]string `toml:"data"` // a pointer tells an empty table from none
	}
	dec := toml.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("parse init-data: %w", err)
	}
	switch {
	case d.Version == nil:
		return nil, errors.New("init-data has no version")
	case *d.Version != Version:
		return nil, fmt.Errorf("init-data version %q is not known, want %q", *d.Version, Version)
	case d.Algorithm == nil:
		return nil, errors.New("init-data has no algorithm")
	case d.Data == nil:
		return nil, errors.New("init-data has no [data] table")
	}
	// The attestation agent of the field takes any case (guest-protocol 5.1).
	algorithm := strings.ToLower(*d.Algorithm)
	if digest(algorithm, nil) == nil {
		return nil, fmt.Errorf("init-data algorithm %q is not one of sha256, sha384, sha512", *d.Algorithm)
	}
	return &Document{raw: bytes.Clone(raw), algorithm: algorithm, data: *d.Data}, nil
}

// Raw returns a copy of the exact bytes that were parsed.
func (d *Document) Raw() []byte { return bytes.Clone(d.raw) }

// Algorithm returns the digest algorithm: sha256, sha384 or sha512.
func (d *Document) Algorithm() string { return d.algorithm }

// Data returns a copy of the [data] table, for example the entries "aa.toml",
// "cdh.toml" and "policy.rego".
func (d *Document) Data() map[string]string { return maps.Clone(d.data) }

// Digest returns the digest of the raw bytes, 32, 48 or 64 bytes long.
func (d *Document) Digest() []byte { return digest(d.algorithm, d.raw) }

func digest(algorithm string, raw []byte) []byte {
	switch algorithm {
	case "sha256":
		s := sha256.Sum256(raw)
		return s[:]
	case "sha384":
		s := sha512.Sum384(raw)
		return s[:]
	case "sha512":
		s := sha512.Sum512(raw)
		return s[:]
	}
	return nil
}

// SNPHostData is the width of HOST_DATA in bytes.
const SNPHostData = 32

// Fit brings a digest to the width of a platform's launch field: a longer one
// is cut, a shorter one filled up with zeros on the right (guest-protocol 5.2,
// kbs-protocol 9.4).
func Fit(digest []byte, width int) []byte {
	field := make([]byte, width)
	copy(field, digest)
	return field
}
