package measure

import (
	"bytes"
	"errors"
)

// ErrUnset is returned when a verifier is called without being told what the
// evidence must be bound to.
var ErrUnset = errors.New("measure: expected binding is not set")

type bindingKind int

const (
	unset bindingKind = iota
	bound
	notPresented
	waived
)

// A Binding says what a field of the evidence must equal. Its zero value is
// "nobody thought about it" and makes every verifier refuse with [ErrUnset].
type Binding struct {
	kind  bindingKind
	value []byte
	why   string
}

// BoundTo demands the given bytes. How they fit a field of another length is
// the platform's rule (kbs-protocol 3.5 and 9.4).
func BoundTo(b []byte) Binding { return Binding{kind: bound, value: bytes.Clone(b)} }

// NotPresented says that the guest sent nothing to compare the field with. The
// field still appears as a claim, and policies may demand a value.
func NotPresented() Binding { return Binding{kind: notPresented} }

// UnsafeUnbound waives the comparison. The reason appears in the verdict.
func UnsafeUnbound(why string) Binding { return Binding{kind: waived, why: why} }

// Set reports whether anybody decided about this binding.
func (b Binding) Set() bool { return b.kind != unset }

// Value returns the demanded bytes, and whether there are any.
func (b Binding) Value() ([]byte, bool) { return b.value, b.kind == bound }

// Waived returns the reason of a waiver, and whether it is one.
func (b Binding) Waived() (string, bool) { return b.why, b.kind == waived }

// Expected is what the relying party knows about evidence before it looks.
// Both members must be set.
type Expected struct {
	ReportData Binding // digest of nonce and guest key
	InitData   Binding // digest of the init-data document
}

// Validate returns [ErrUnset] unless every binding was decided.
func (e Expected) Validate() error {
	if !e.ReportData.Set() || !e.InitData.Set() {
		return ErrUnset
	}
	return nil
}
