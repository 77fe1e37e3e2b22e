package refvalue

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/sign1"
)

// contentType of the payload of a signed CoRIM.
const contentType = "application/rim+cbor"

// ErrSignature says that a document's signature is not by the given key.
var ErrSignature = errors.New("the signature of the document is not by this key")

// Sign writes the document signed with COSE_Sign1 (RFC 9052 section 4.2), with
// ES256, ES384 or EdDSA by the kind of the key. The key id tells a reader which
// key to look for; it is a hint and proves nothing.
func (d Document) Sign(key crypto.Signer, keyID string) ([]byte, error) {
	payload, err := d.CoRIM()
	if err != nil {
		return nil, err
	}
	return sign1.Sign(payload, contentType, keyID, key)
}

// Envelope is a document as it travels, not believed yet.
type Envelope struct {
	signed  *cose.Sign1Message // nil without a signature
	payload []byte
}

// Open takes a CoRIM apart: signed (COSE_Sign1, with or without its tag 18 or
// the tag 502 of early drafts) or unsigned (tag 501), either within tag 500.
// It believes nothing.
func Open(raw []byte) (*Envelope, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrDocument, len(raw), MaxSize)
	}
	if content, ok := untag(raw, tagOuter); ok {
		raw = content
	}
	if _, ok := untag(raw, tagUnsigned); ok {
		return &Envelope{payload: raw}, nil
	}
	if content, ok := untag(raw, tagSigned); ok {
		raw = content
	}
	m := cose.NewSign1Message()
	if err := m.UnmarshalCBOR(raw); err != nil {
		var untagged cose.UntaggedSign1Message
		if untagged.UnmarshalCBOR(raw) != nil {
			return nil, malformed("neither a CoRIM nor a COSE_Sign1 message", err)
		}
		m = (*cose.Sign1Message)(&untagged)
	}
	if len(m.Payload) == 0 {
		return nil, fmt.Errorf("%w: the signed message has no payload", ErrDocument)
	}
	return &Envelope{signed: m, payload: m.Payload}, nil
}

// Signed reports whether there is a signature to verify.
func (e *Envelope) Signed() bool { return e.signed != nil }

// KeyID is the hint at the signer's key, "" if there is none.
func (e *Envelope) KeyID() string {
	if e.signed == nil {
		return ""
	}
	for _, h := range []map[any]any{e.signed.Headers.Protected, e.signed.Headers.Unprotected} {
		if id, ok := h[cose.HeaderLabelKeyID].([]byte); ok {
			return string(id)
		}
	}
	return ""
}

// Verify checks the signature. The key decides the algorithm, never the
// message. An error wraps ErrSignature.
func (e *Envelope) Verify(key crypto.PublicKey) error {
	if e.signed == nil {
		return fmt.Errorf("%w: there is none", ErrSignature)
	}
	if err := sign1.Verify(e.signed, key); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// Document reads the payload. It is worth what the signature is worth.
func (e *Envelope) Document() (Document, error) { return parse(e.payload) }
