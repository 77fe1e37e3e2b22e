package sigstore

import "crypto"

// Content is bytes, or what they hash to where there are too many to be held. The
// zero value is neither.
type Content struct {
	raw  []byte
	sums map[crypto.Hash][]byte
}

// Bytes is content that is at hand.
func Bytes(b []byte) Content { return Content{raw: b} }

// Hashed is content of which the digests are known, and nothing else.
func Hashed(sums map[crypto.Hash][]byte) Content { return Content{sums: sums} }

// None reports whether there is no content at all.
func (c Content) None() bool { return c.raw == nil && c.sums == nil }

// Raw returns the bytes; ok is false if they are not at hand.
func (c Content) Raw() (b []byte, ok bool) { return c.raw, c.raw != nil }

// Sum returns a digest; nil if it is not known. A caller must not take that for one:
// some signatures of nothing can be made by anybody.
func (c Content) Sum(h crypto.Hash) []byte {
	if c.raw != nil {
		return hash(h, c.raw)
	}
	return c.sums[h]
}
