package ship

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// payload is the simple-signing document (containers-signature(5)).
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest digest.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]string `json:"optional"`
}

// tag pushes a signature the way cosign first did: as a layer of the manifest
// tagged sha256-<hex>.sig.
func (s *signing) tag(ctx context.Context, root registry.Manifest) (string, error) {
	tag := trust.SignatureTag(root.Digest)
	layer, err := pushSignature(ctx, s.at, s.signer, s.fingerprint, payloadOf(s.at.ref.Name(), root.Digest, s.o.Annotations))
	if err != nil {
		return "", err
	}
	return s.at.ref.Name() + ":" + tag, appendSignature(ctx, s.at, tag, layer)
}

func payloadOf(name string, d digest.Digest, annotations map[string]string) payload {
	p := payload{Optional: annotations}
	p.Critical.Identity.Reference = name
	p.Critical.Image.Digest = d
	p.Critical.Type = trust.PayloadType
	return p
}

// pushSignature writes the payload blob and returns its descriptor, signature
// included.
func pushSignature(ctx context.Context, at *place, signer crypto.Signer, fingerprint string, p payload) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	sig, err := signPayload(signer, raw)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("sign: %w", err)
	}
	desc, err := at.sink.PushBlob(ctx, bytes.NewReader(raw))
	if err != nil {
		return desc, err
	}
	desc.MediaType = trust.MediaTypeSimpleSigning
	desc.Annotations = map[string]string{trust.AnnotationSignature: base64.StdEncoding.EncodeToString(sig), trust.AnnotationKey: fingerprint}
	return desc, nil
}

// appendSignature adds the layer to the signature manifest. An older signature
// by the same key for the same payload is replaced.
func appendSignature(ctx context.Context, at *place, tag string, layer ocispec.Descriptor) error {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	old, err := at.source.Manifest(ctx, tag)
	switch {
	case errors.Is(err, registry.ErrNotFound):
	case err != nil:
		return err
	default:
		doc, err := old.Image()
		if err != nil {
			return err
		}
		m.Layers, m.Annotations = doc.Layers, doc.Annotations
	}
	m.Layers = slices.DeleteFunc(m.Layers, func(d ocispec.Descriptor) bool {
		return d.Digest == layer.Digest && d.Annotations[trust.AnnotationKey] == layer.Annotations[trust.AnnotationKey]
	})
	m.Layers = append(m.Layers, layer)
	if m.Config, err = pushSignatureConfig(ctx, at, m.Layers); err != nil {
		return err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = at.sink.PushManifest(ctx, tag, ocispec.MediaTypeImageManifest, raw)
	return err
}

// pushSignatureConfig writes the image config that cosign gives its signature
// manifests: an empty one whose diffIDs are the payloads.
func pushSignatureConfig(ctx context.Context, at *place, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := at.sink.PushBlob(ctx, bytes.NewReader(raw))
	desc.MediaType = ocispec.MediaTypeImageConfig
	return desc, err
}
