package trust

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// The cosign conventions (guest-protocol 15.3).
const (
	MediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	AnnotationSignature    = "dev.cosignproject.cosign/signature"
	// AnnotationKey is a hint of ours: the fingerprint of the signing key. It
	// proves nothing and only helps to explain a rejection.
	AnnotationKey = "cc.vouchsafe.signature/key"
	PayloadType   = "cosign container image signature"
	// payloadTypeAtomic is what simple signing with GPG calls its payload.
	payloadTypeAtomic = "atomic container signature"

	maxPayload    = 64 << 10 // bytes of one signature payload
	maxSignatures = 64       // per image
)

// A Form is how a signature says what it signs.
type Form string

// The forms of signatures.
const (
	FormSimple  Form = "cosign"                 // simple signing, cosign's first form
	FormDSSE    Form = "bundle-dsse"            // sigstore bundle with an in-toto statement
	FormMessage Form = "bundle-message"         // sigstore bundle over the manifest itself
	FormOpenPGP Form = "openpgp-simple-signing" // simple signing, GPG
)

// An Origin is where a signature was found.
type Origin string

// The origins of signatures.
const (
	OriginTag       Origin = "tag"
	OriginReferrers Origin = "referrers"
	OriginLookaside Origin = "lookaside"
)

// A Signature is one signature as the registry holds it: unverified. A
// signature without a form is simple signing's.
type Signature struct {
	Payload []byte // the simple-signing document, the in-toto statement, or the manifest
	Sig     []byte
	KeyHint string // what the signature says of its key, unproven
	Form    Form
	Origin  Origin

	signed   digest.Digest     // FormMessage: the manifest's
	material sigstore.Material // what it brings besides
	spoiled  error             // why that could not be read

	mediaType string // of a Notation envelope, which is the payload

	stream *streamed // a payload that was not kept; nil: it is in Payload
}

// message returns what the signature covers.
func (s Signature) message() sigstore.Content {
	switch {
	case s.stream != nil:
		return s.stream.message
	case s.Form == FormDSSE:
		return sigstore.Bytes(PreAuthentication(PayloadTypeInToto, s.Payload))
	}
	return sigstore.Bytes(s.Payload)
}

// envelope returns what a DSSE envelope carries; none: there is no envelope.
func (s Signature) envelope() sigstore.Content {
	switch {
	case s.stream != nil:
		return s.stream.payload
	case s.Form == FormDSSE:
		return sigstore.Bytes(s.Payload)
	}
	return sigstore.Content{}
}

// statement returns what an envelope says.
func (s Signature) statement() (statement, error) {
	if s.stream != nil {
		return s.stream.statement, nil
	}
	return parseStatement(s.Payload)
}

// claims returns what the signature says of images. Nothing of it is worth
// anything before the signature has been verified.
func (s Signature) claims() ([]Claim, error) {
	switch s.Form {
	case FormDSSE:
		st, err := s.statement()
		if err != nil {
			return nil, err
		}
		return st.signed()
	case FormMessage:
		return []Claim{{Digest: s.signed}}, nil
	case FormOpenPGP:
		c, err := parsePayload(s.Payload, payloadTypeAtomic)
		return []Claim{c}, err
	case FormJWS, FormCOSE:
		claims, _, err := s.notationClaims()
		return claims, err
	case FormSimple:
	}
	c, err := ParsePayload(s.Payload)
	return []Claim{c}, err
}

// SignatureTag returns the tag under which cosign keeps the signatures of a
// manifest: sha256-<hex>.sig.
func SignatureTag(d digest.Digest) string {
	return d.Algorithm().String() + "-" + d.Encoded() + ".sig"
}

// AttestationTag returns the tag under which cosign keeps what is attested of a
// manifest: sha256-<hex>.att.
func AttestationTag(d digest.Digest) string {
	return d.Algorithm().String() + "-" + d.Encoded() + ".att"
}

// fetchAttestations reads the envelopes under cosign's tag; none is not an
// error.
func fetchAttestations(ctx context.Context, src registry.Source, d digest.Digest) (referrers, error) {
	m, err := src.Manifest(ctx, AttestationTag(d))
	if errors.Is(err, registry.ErrNotFound) {
		return referrers{}, nil
	}
	if err != nil {
		return referrers{}, fmt.Errorf("attestations: %w", err)
	}
	doc, err := m.Image()
	if err != nil {
		return referrers{}, fmt.Errorf("attestations: %w", err)
	}
	r := reader{src: src}
	if err := r.envelopes(ctx, doc.Layers, OriginTag); err != nil {
		return referrers{}, fmt.Errorf("attestations: %w", err)
	}
	return r.referrers, nil
}

// FetchSignatures reads the signatures beside a manifest; none is not an error.
func FetchSignatures(ctx context.Context, src registry.Source, d digest.Digest) ([]Signature, error) {
	m, err := src.Manifest(ctx, SignatureTag(d))
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	doc, err := m.Image()
	if err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	return simpleSignatures(ctx, src, doc.Layers, OriginTag)
}

// simpleSignatures reads the layers of a manifest that cosign made.
func simpleSignatures(ctx context.Context, src registry.Source, layers []ocispec.Descriptor, from Origin) ([]Signature, error) {
	var sigs []Signature
	for _, layer := range layers {
		text := strings.NewReplacer("\n", "", "\r", "").Replace(layer.Annotations[AnnotationSignature])
		if layer.MediaType != MediaTypeSimpleSigning || text == "" {
			continue
		}
		if len(sigs) == maxSignatures {
			return nil, fmt.Errorf("signatures: more than %d", maxSignatures)
		}
		sig, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			continue // one broken signature must not hide a good one
		}
		payload, err := registry.ReadBlob(ctx, src, layer, maxPayload)
		if err != nil {
			return nil, fmt.Errorf("signature payload: %w", err)
		}
		s := Signature{Payload: payload, Sig: sig, KeyHint: layer.Annotations[AnnotationKey], Form: FormSimple, Origin: from}
		s.material, s.spoiled = sigstore.AnnotatedMaterial(layer.Annotations) // a policy of keys does not look at it
		sigs = append(sigs, s)
	}
	return sigs, nil
}
