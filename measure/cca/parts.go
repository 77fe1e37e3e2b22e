package cca

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Platform is what the platform's part says (RMM specification A7.2.3.2).
type Platform struct {
	Profile          string
	Challenge        []byte   // the hash of the realm's key
	ImplementationID [32]byte // of the kind of machine
	InstanceID       [33]byte // of this machine
	Config           []byte
	Lifecycle        uint16
	Components       []Component
	Service          string // where its verifier is to be found; may be empty
	HashAlgorithm    string
}

// Component is one piece of firmware that can affect the platform.
type Component struct {
	Type          string // role, for example "RMM"; may be empty
	Measurement   []byte
	Version       string // may be empty
	Signer        []byte // hash of its signer's key
	HashAlgorithm string // may be empty: then that of the platform
}

// Realm is what the realm's part says (RMM specification A7.2.3.1).
type Realm struct {
	Profile         string // empty in tokens of the first edition
	Challenge       [64]byte
	Personalization [64]byte // set by the host at creation
	Initial         []byte   // RIM: the realm as it was created
	Extensible      [4][]byte
	HashAlgorithm   string
	PublicKey       []byte // RAK as it is written in the token
	KeyHash         string // the algorithm of its hash in the platform's part
}

// The parts as CBOR. Claims that are not named here are signed too, and say
// nothing that is known.
type (
	wirePlatform struct {
		Challenge        []byte          `cbor:"10,keyasint"`
		InstanceID       []byte          `cbor:"256,keyasint"`
		Profile          *string         `cbor:"265,keyasint"`
		Lifecycle        *uint16         `cbor:"2395,keyasint"`
		ImplementationID []byte          `cbor:"2396,keyasint"`
		Components       []wireComponent `cbor:"2399,keyasint"`
		Service          string          `cbor:"2400,keyasint,omitempty"`
		Config           []byte          `cbor:"2401,keyasint"`
		HashAlgorithm    *string         `cbor:"2402,keyasint"`
	}
	wireComponent struct {
		Type          string `cbor:"1,keyasint,omitempty"`
		Measurement   []byte `cbor:"2,keyasint"`
		Version       string `cbor:"4,keyasint,omitempty"`
		Signer        []byte `cbor:"5,keyasint"`
		HashAlgorithm string `cbor:"6,keyasint,omitempty"`
	}
	wireRealm struct {
		Challenge       []byte   `cbor:"10,keyasint"`
		Profile         string   `cbor:"265,keyasint,omitempty"`
		Personalization []byte   `cbor:"44235,keyasint"`
		HashAlgorithm   *string  `cbor:"44236,keyasint"`
		PublicKey       []byte   `cbor:"44237,keyasint"`
		Initial         []byte   `cbor:"44238,keyasint"`
		Extensible      [][]byte `cbor:"44239,keyasint"`
		KeyHash         *string  `cbor:"44240,keyasint"`
	}
)

// maxText bounds texts within a token, in bytes.
const maxText = 1024

var errMissing = errors.New("missing")

// decode reads the platform's part. Every claim that the specification demands
// must be there in the length that it has.
func (p *Platform) decode(payload []byte) error {
	var w wirePlatform
	if err := strict.Unmarshal(payload, &w); err != nil {
		return err
	}
	f := fields{}
	p.Profile, p.HashAlgorithm = f.text("profile", w.Profile), f.text("hash algorithm", w.HashAlgorithm)
	p.Service = f.text("verification service", &w.Service)
	p.Challenge, p.Config = f.hash("challenge", w.Challenge), w.Config
	f.exact("implementation id", p.ImplementationID[:], w.ImplementationID)
	f.exact("instance id", p.InstanceID[:], w.InstanceID)
	if p.InstanceID[0] != 1 {
		f.fail("instance id", errors.New("not a random UEID (first byte 1)"))
	}
	if w.Config == nil {
		f.fail("configuration", errMissing)
	}
	if w.Lifecycle == nil {
		f.fail("lifecycle", errMissing)
	} else {
		p.Lifecycle = *w.Lifecycle
	}
	if len(w.Components) == 0 {
		f.fail("software components", errMissing)
	}
	for i, c := range w.Components {
		name := fmt.Sprintf("software component %d", i)
		p.Components = append(p.Components, Component{
			Type: f.text(name, &c.Type), Version: f.text(name, &c.Version), HashAlgorithm: f.text(name, &c.HashAlgorithm),
			Measurement: f.hash(name, c.Measurement), Signer: f.hash(name, c.Signer),
		})
	}
	return f.err
}

// decode reads the realm's part.
func (r *Realm) decode(payload []byte) error {
	var w wireRealm
	if err := strict.Unmarshal(payload, &w); err != nil {
		return err
	}
	f := fields{}
	r.Profile, r.PublicKey = f.text("profile", &w.Profile), w.PublicKey
	r.HashAlgorithm, r.KeyHash = f.text("hash algorithm", w.HashAlgorithm), f.text("public key hash algorithm", w.KeyHash)
	f.exact("challenge", r.Challenge[:], w.Challenge)
	f.exact("personalization value", r.Personalization[:], w.Personalization)
	r.Initial = f.hash("initial measurement", w.Initial)
	if len(w.PublicKey) == 0 || len(w.PublicKey) > maxText {
		f.fail("public key", fmt.Errorf("%d bytes", len(w.PublicKey)))
	}
	if len(w.Extensible) != len(r.Extensible) {
		f.fail("extensible measurements", fmt.Errorf("%d of them, want %d", len(w.Extensible), len(r.Extensible)))
		return f.err
	}
	for i, m := range w.Extensible {
		r.Extensible[i] = f.hash("extensible measurement", m)
	}
	return f.err
}

// fields collects the first error of a part.
type fields struct{ err error }

func (f *fields) fail(name string, err error) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", name, err)
	}
}

func (f *fields) text(name string, s *string) string {
	switch {
	case s == nil:
		f.fail(name, errMissing)
		return ""
	case len(*s) > maxText || !utf8.ValidString(*s):
		f.fail(name, fmt.Errorf("not text of at most %d bytes", maxText))
	}
	return *s
}

// hash accepts the lengths of SHA-256, SHA-384 and SHA-512.
func (f *fields) hash(name string, b []byte) []byte {
	if len(b) != 32 && len(b) != 48 && len(b) != 64 {
		f.fail(name, fmt.Errorf("%d bytes, want 32, 48 or 64", len(b)))
	}
	return bytes.Clone(b)
}

func (f *fields) exact(name string, field, b []byte) {
	if len(b) != len(field) {
		f.fail(name, fmt.Errorf("%d bytes, want %d", len(b), len(field)))
	}
	copy(field, b)
}
