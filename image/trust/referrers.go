package trust

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// FetchReferrers reads the signatures that refer to a manifest: by the
// registry's API where the source has it, else by the fallback tag. None is
// not an error, and what is no signature of these forms is left out; broken
// says why a signature could not be read.
func FetchReferrers(ctx context.Context, src registry.Source, d digest.Digest) (sigs []Signature, broken []string, err error) {
	list, err := listReferrers(ctx, src, d)
	if err != nil {
		return nil, nil, err
	}
	seen := 0
	for _, desc := range list {
		switch desc.ArtifactType {
		case MediaTypeBundle, mediaTypeBundleOld, artifactCosign, "":
		default:
			continue
		}
		if seen++; seen > maxSignatures {
			return nil, nil, fmt.Errorf("signatures: more than %d referrers", maxSignatures)
		}
		more, why, err := referrer(ctx, src, desc, d)
		if err != nil {
			return nil, nil, err
		}
		sigs, broken = append(sigs, more...), append(broken, why...)
	}
	return sigs, broken, nil
}

func listReferrers(ctx context.Context, src registry.Source, d digest.Digest) ([]ocispec.Descriptor, error) {
	if r, ok := src.(referrerSource); ok {
		return r.Referrers(ctx, d)
	}
	return registry.TaggedReferrers(ctx, src, d)
}

// referrer reads the signatures in one manifest that refers to d.
func referrer(ctx context.Context, src registry.Source, desc ocispec.Descriptor, d digest.Digest) (sigs []Signature, broken []string, err error) {
	m, err := src.Manifest(ctx, desc.Digest.String())
	if errors.Is(err, registry.ErrNotFound) {
		return nil, []string{fmt.Sprintf("a referrer that is gone, %s", desc.Digest)}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("referrer: %w", err)
	}
	doc, err := m.Image()
	if err != nil || doc.Subject == nil || doc.Subject.Digest != d {
		return nil, nil, nil //nolint:nilerr // an index, or the referrer of another image: no signature of this one
	}
	sigs, err = simpleSignatures(ctx, src, doc.Layers, OriginReferrers)
	if err != nil {
		return nil, nil, err
	}
	for i, layer := range doc.Layers {
		if layer.MediaType != MediaTypeBundle && layer.MediaType != mediaTypeBundleOld {
			continue
		}
		if i >= maxSignatures {
			return nil, nil, fmt.Errorf("signatures: more than %d bundles", maxSignatures)
		}
		s, err := bundle(ctx, src, layer, d)
		if _, ok := errors.AsType[*badBundleError](err); ok {
			broken = append(broken, err.Error())
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		sigs = append(sigs, s)
	}
	return sigs, broken, nil
}

// badBundleError sets what a bundle says apart from what cannot be fetched.
type badBundleError struct{ cause error }

func (e *badBundleError) Error() string { return e.cause.Error() }
func (e *badBundleError) Unwrap() error { return e.cause }

func bundle(ctx context.Context, src registry.Source, layer ocispec.Descriptor, d digest.Digest) (Signature, error) {
	raw, err := registry.ReadBlob(ctx, src, layer, maxBundle)
	if err != nil {
		return Signature{}, fmt.Errorf("sigstore bundle: %w", err)
	}
	signed, err := src.Manifest(ctx, d.String()) // what a messageSignature covers
	if err != nil {
		return Signature{}, fmt.Errorf("signed manifest: %w", err)
	}
	s, err := ParseBundle(raw, d, signed.Raw)
	if err != nil {
		return Signature{}, &badBundleError{cause: err}
	}
	return s, nil
}
