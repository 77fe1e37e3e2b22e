package trust

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// artifactCosign is what cosign calls a signature manifest that it attaches by
// the referrers API in its first form.
const artifactCosign = "application/vnd.dev.cosign.artifact.sig.v1+json"

// A referrerSource also lists what refers to a manifest.
// [*registry.Repository] does.
type referrerSource interface {
	Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error)
}

// fetchReferrers reads the signatures and attestations that refer to a
// manifest: by the registry's API where the source has it, else by the fallback
// tag. None is not an error, and what has none of these forms is left out.
func fetchReferrers(ctx context.Context, src registry.Source, d digest.Digest) (referrers, error) {
	list, err := listReferrers(ctx, src, d)
	if err != nil {
		return referrers{}, err
	}
	r := reader{src: src}
	seen := 0
	for _, desc := range list {
		switch desc.ArtifactType {
		case MediaTypeBundle, mediaTypeBundleOld, artifactCosign, MediaTypeEnvelope, ArtifactNotation, "":
		case ocispec.MediaTypeEmptyJSON: // of registries that list the type of the config, which says nothing
		default:
			continue
		}
		if seen++; seen > maxSignatures {
			return referrers{}, fmt.Errorf("signatures: more than %d referrers", maxSignatures)
		}
		if err := r.referrer(ctx, desc, d); err != nil {
			return referrers{}, err
		}
	}
	return r.referrers, nil
}

func listReferrers(ctx context.Context, src registry.Source, d digest.Digest) ([]ocispec.Descriptor, error) {
	if r, ok := src.(referrerSource); ok {
		return r.Referrers(ctx, d)
	}
	return registry.TaggedReferrers(ctx, src, d)
}

// referrers are the signatures and attestations of one place beside a manifest.
type referrers struct {
	sigs   []Signature
	bulk   []*bulk
	broken []string // why others could not be read
	huge   int64    // bytes of the largest that nobody reads
}

// A reader collects signatures and attestations, up to a limit of bytes.
type reader struct {
	referrers
	src  registry.Source
	read int64 // bytes of bundles and envelopes that are held
	left int64 // and of those that are not
}

// referrer reads the signatures in one manifest that refers to d.
func (r *reader) referrer(ctx context.Context, desc ocispec.Descriptor, d digest.Digest) error {
	m, err := r.src.Manifest(ctx, desc.Digest.String())
	if errors.Is(err, registry.ErrNotFound) {
		r.broken = append(r.broken, fmt.Sprintf("a referrer that is gone, %s", desc.Digest))
		return nil
	}
	if err != nil {
		return fmt.Errorf("referrer: %w", err)
	}
	doc, err := m.Image()
	if err != nil || doc.Subject == nil || doc.Subject.Digest != d {
		return nil //nolint:nilerr // an index, or the referrer of another image: no signature of this one
	}
	sigs, err := simpleSignatures(ctx, r.src, doc.Layers, OriginReferrers)
	if err != nil {
		return err
	}
	r.sigs = append(r.sigs, sigs...)
	if err := r.envelopes(ctx, doc.Layers, OriginReferrers); err != nil {
		return err
	}
	if doc.ArtifactType == ArtifactNotation || doc.Config.MediaType == ArtifactNotation {
		return r.notation(ctx, doc.Layers)
	}
	for i, layer := range doc.Layers {
		if layer.MediaType != MediaTypeBundle && layer.MediaType != mediaTypeBundleOld {
			continue
		}
		if i >= maxSignatures {
			return fmt.Errorf("signatures: more than %d bundles", maxSignatures)
		}
		if err := r.bundle(ctx, layer, d); err != nil {
			return err
		}
	}
	return nil
}

// blob reads one bundle or envelope; nil if it is too large. What attests much
// of an image, for example everything that is in it, may be: such a one is left for
// later, if it is not beyond all limits, which must not make the image impossible to
// run either.
func (r *reader) blob(ctx context.Context, layer ocispec.Descriptor, later *bulk) ([]byte, error) {
	if layer.Size <= maxBundle && r.read+layer.Size <= maxBundles {
		r.read += layer.Size
		return registry.ReadBlob(ctx, r.src, layer, maxBundle)
	}
	if later == nil || layer.Size > maxBulk || r.left+layer.Size > maxBulks {
		r.broken = append(r.broken, fmt.Sprintf("an attestation or bundle of %d bytes, which was not read: at most %d are of one, and %d of all",
			layer.Size, maxBulk, maxBulks))
		r.huge = max(r.huge, layer.Size)
		return nil, nil
	}
	r.left += layer.Size
	later.src, later.desc = r.src, layer
	r.bulk = append(r.bulk, later)
	return nil, nil
}

func (r *reader) bundle(ctx context.Context, layer ocispec.Descriptor, d digest.Digest) error {
	raw, err := r.blob(ctx, layer, &bulk{path: []string{"dsseEnvelope", "payload"}, parse: func(frame []byte) (Signature, error) {
		return ParseBundle(frame, d, nil)
	}})
	if err != nil {
		return fmt.Errorf("sigstore bundle: %w", err)
	}
	if raw == nil {
		return nil
	}
	signed, err := r.src.Manifest(ctx, d.String()) // what a messageSignature covers
	if err != nil {
		return fmt.Errorf("signed manifest: %w", err)
	}
	s, err := ParseBundle(raw, d, signed.Raw)
	if err != nil {
		r.broken = append(r.broken, err.Error())
		return nil
	}
	r.sigs = append(r.sigs, s)
	return nil
}

// notation reads the envelope of a signature of the Notary Project, which has a
// manifest of its own.
func (r *reader) notation(ctx context.Context, layers []ocispec.Descriptor) error {
	if len(layers) != 1 || notationForms[layers[0].MediaType] == "" || layers[0].Size > maxNotation {
		r.broken = append(r.broken, "a Notation signature of another shape")
		return nil
	}
	raw, err := r.blob(ctx, layers[0], nil)
	if err != nil {
		return fmt.Errorf("notation signature: %w", err)
	}
	if raw != nil {
		mediaType := layers[0].MediaType
		r.sigs = append(r.sigs, Signature{Payload: raw, Form: notationForms[mediaType], Origin: OriginReferrers, mediaType: mediaType})
	}
	return nil
}

// envelopes reads the DSSE envelopes that cosign attached without a bundle.
func (r *reader) envelopes(ctx context.Context, layers []ocispec.Descriptor, from Origin) error {
	for i, layer := range layers {
		if layer.MediaType != MediaTypeEnvelope {
			continue
		}
		if i >= maxSignatures {
			return fmt.Errorf("more than %d attestations", maxSignatures)
		}
		parse := func(raw []byte) (Signature, error) {
			s, err := ParseEnvelope(raw)
			s.Origin = from
			s.material, s.spoiled = sigstore.AnnotatedMaterial(layer.Annotations)
			return s, err
		}
		raw, err := r.blob(ctx, layer, &bulk{path: []string{"payload"}, parse: parse})
		if err != nil {
			return fmt.Errorf("attestation: %w", err)
		}
		if raw == nil {
			continue
		}
		s, err := parse(raw)
		if err != nil {
			r.broken = append(r.broken, err.Error())
			continue
		}
		r.sigs = append(r.sigs, s)
	}
	return nil
}
