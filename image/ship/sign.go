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
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// SignResult says what was signed and where the signature lies.
type SignResult struct {
	Digest       string `json:"digest"`       // that was signed: the index of a multi-platform image
	SignatureRef string `json:"signatureRef"` // the signature's own reference
	Key          string `json:"key"`          // fingerprint of the public key
}

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

// Sign signs what ref points to with a PEM PKCS#8 key and pushes the signature
// the way cosign does: as a layer of the manifest tagged sha256-<hex>.sig.
// Signatures that are there already stay. Two signers at the same moment may
// overwrite each other, for registries cannot compare and swap a tag.
func Sign(ctx context.Context, ref string, key secret.Bytes, r registry.Config) (SignResult, error) {
	return SignAnnotated(ctx, ref, key, nil, r)
}

// SignAnnotated is [Sign] with annotations, which are signed too: a policy can
// ask for them, for example for a version that is not below a floor.
func SignAnnotated(ctx context.Context, ref string, key secret.Bytes, annotations map[string]string, r registry.Config) (SignResult, error) {
	signer, err := ParsePrivateKey(key)
	if err != nil {
		return SignResult{}, err
	}
	if _, _, ok := registry.ParseLayout(ref); ok {
		return SignResult{}, errNoRegistry
	}
	client, err := registry.NewClient(r)
	if err != nil {
		return SignResult{}, err
	}
	at, err := openPlace(client, ref, false)
	if err != nil {
		return SignResult{}, err
	}
	root, err := at.source.Manifest(ctx, at.version)
	if err != nil {
		return SignResult{}, err
	}
	fingerprint, err := trust.Fingerprint(signer.Public())
	if err != nil {
		return SignResult{}, err
	}
	tag := trust.SignatureTag(root.Digest)
	layer, err := pushSignature(ctx, at, signer, fingerprint, payloadOf(at.ref.Name(), root.Digest, annotations))
	if err != nil {
		return SignResult{}, err
	}
	if err := appendSignature(ctx, at, tag, layer); err != nil {
		return SignResult{}, err
	}
	return SignResult{Digest: root.Digest.String(), SignatureRef: at.ref.Name() + ":" + tag, Key: fingerprint}, nil
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
