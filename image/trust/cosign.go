package trust

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// The cosign conventions (guest-protocol 15.3).
const (
	MediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	AnnotationSignature    = "dev.cosignproject.cosign/signature"
	// AnnotationKey is a hint of ours: the fingerprint of the signing key. It
	// proves nothing and only helps to explain a rejection.
	AnnotationKey = "cc.vouchsafe.signature/key"
	PayloadType   = "cosign container image signature"

	maxPayload    = 64 << 10 // bytes of one signature payload
	maxSignatures = 64       // per image
)

// A Signature is one cosign signature as the registry holds it: unverified.
type Signature struct {
	Payload []byte
	Sig     []byte
	KeyHint string // what [AnnotationKey] claims
}

// Claim is what a payload says was signed.
type Claim struct {
	Digest    digest.Digest // of the manifest
	Reference string        // docker-reference
}

// SignatureTag returns the tag under which cosign keeps the signatures of a
// manifest: sha256-<hex>.sig.
func SignatureTag(d digest.Digest) string {
	return d.Algorithm().String() + "-" + d.Encoded() + ".sig"
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
	var sigs []Signature
	for _, layer := range doc.Layers {
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
		sigs = append(sigs, Signature{Payload: payload, Sig: sig, KeyHint: layer.Annotations[AnnotationKey]})
	}
	return sigs, nil
}

// ParsePayload reads a signature payload (containers-signature(5)). Anything
// unknown in its critical part is an error: it might be a condition.
func ParsePayload(raw []byte) (Claim, error) {
	c, err := parsePayload(raw)
	if err != nil {
		return Claim{}, fmt.Errorf("signature payload: %w", err)
	}
	return c, nil
}

func parsePayload(raw []byte) (Claim, error) {
	var c Claim
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return c, err
	}
	critical, err := child(doc, "critical")
	if err != nil {
		return c, err
	}
	image, err := child(critical, "image")
	if err != nil {
		return c, err
	}
	identity, err := child(critical, "identity")
	if err != nil {
		return c, err
	}
	var kind string
	var optional any
	for _, m := range []struct {
		in   *strictjson.Object
		name string
		v    any
	}{{critical, "type", &kind}, {image, "docker-manifest-digest", &c.Digest}, {identity, "docker-reference", &c.Reference}, {doc, "optional", &optional}} {
		if _, err := m.in.Take(m.name, m.v); err != nil {
			return c, err
		}
	}
	if kind != PayloadType {
		return c, fmt.Errorf("type %.60q is not supported", kind)
	}
	if err := registry.CheckDigest(c.Digest); err != nil {
		return c, err
	}
	return c, errors.Join(doc.Done(), critical.Done(), image.Done(), identity.Done())
}

func child(o *strictjson.Object, name string) (*strictjson.Object, error) {
	c, err := o.Object(name)
	if err == nil && c == nil {
		err = fmt.Errorf("member %q is missing", name)
	}
	return c, err
}
