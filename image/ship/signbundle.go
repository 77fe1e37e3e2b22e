package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// What cosign 3 writes on the manifest of a bundle.
const (
	annotationBundleContent   = "dev.sigstore.bundle.content"
	annotationBundlePredicate = "dev.sigstore.bundle.predicateType"
)

// A bundleJSON is a Sigstore bundle (sigstore protobuf-specs, bundle.proto) made
// with a key: without entries of a log and without timestamps.
type bundleJSON struct {
	MediaType string       `json:"mediaType"`
	Material  materialJSON `json:"verificationMaterial"`
	Envelope  envelopeJSON `json:"dsseEnvelope"`
}

type materialJSON struct {
	Key keyJSON `json:"publicKey"`
}

type keyJSON struct {
	Hint string `json:"hint"`
}

// An envelopeJSON is a DSSE envelope. encoding/json writes []byte as base64.
type envelopeJSON struct {
	Payload     []byte          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	Sig []byte `json:"sig"`
}

// A statementJSON is the in-toto statement by which cosign 3 signs. The name of
// the subject is ours: cosign signs a digest alone, and then a policy cannot
// tell for which repository it was meant.
type statementJSON struct {
	Type          string        `json:"_type"`
	Subject       []subjectJSON `json:"subject"`
	PredicateType string        `json:"predicateType"`
	Predicate     struct{}      `json:"predicate"`
}

type subjectJSON struct {
	Name        string            `json:"name"`
	Digest      map[string]string `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// bundle pushes a bundle of version 0.3 as a referrer.
func (s *signing) bundle(ctx context.Context, root registry.Manifest) (string, error) {
	raw, err := s.signBundle(root)
	if err != nil {
		return "", err
	}
	return s.refer(ctx, root, artifact{
		kind: trust.MediaTypeBundle, config: ocispec.MediaTypeEmptyJSON, layer: trust.MediaTypeBundle, body: raw,
		annotations: map[string]string{annotationBundleContent: "dsse-envelope", annotationBundlePredicate: trust.PredicateSign},
	})
}

func (s *signing) signBundle(root registry.Manifest) ([]byte, error) {
	payload, err := json.Marshal(statementJSON{
		Type: "https://in-toto.io/Statement/v1", PredicateType: trust.PredicateSign,
		Subject: []subjectJSON{{
			Name: s.at.ref.Name(), Digest: map[string]string{root.Digest.Algorithm().String(): root.Digest.Encoded()}, Annotations: s.o.Annotations,
		}},
	})
	if err != nil {
		return nil, err
	}
	sig, err := signPayload(s.signer, trust.PreAuthentication(trust.PayloadTypeInToto, payload))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	hint, err := trust.KeyHint(s.signer.Public())
	if err != nil {
		return nil, err
	}
	return json.Marshal(bundleJSON{
		MediaType: trust.MediaTypeBundle, Material: materialJSON{Key: keyJSON{Hint: hint}},
		Envelope: envelopeJSON{Payload: payload, PayloadType: trust.PayloadTypeInToto, Signatures: []signatureJSON{{Sig: sig}}},
	})
}

// An artifact is a manifest with one layer that refers to an image.
type artifact struct {
	kind        string // artifact type; empty: the config's media type says it
	config      string // media type of the config, an empty object
	layer       string // media type of the body
	body        []byte
	annotations map[string]string
}

func (s *signing) refer(ctx context.Context, root registry.Manifest, a artifact) (string, error) {
	layer, err := s.at.sink.PushBlob(ctx, bytes.NewReader(a.body))
	if err != nil {
		return "", err
	}
	layer.MediaType = a.layer
	config, err := s.at.sink.PushBlob(ctx, bytes.NewReader(ocispec.DescriptorEmptyJSON.Data))
	if err != nil {
		return "", err
	}
	config.MediaType = a.config
	subject := root.Descriptor()
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: a.kind,
		Config: config, Layers: []ocispec.Descriptor{layer}, Subject: &subject, Annotations: a.annotations,
	})
	if err != nil {
		return "", err
	}
	m, err := registry.Attach(ctx, s.at.store, raw)
	if err != nil {
		return "", err
	}
	return s.at.ref.Name() + "@" + m.Digest.String(), nil
}
