package keyset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// ArtifactType is what the manifest of a key set, its config (which is empty) and
// its one layer are called.
const ArtifactType = "application/vnd.vouchsafe.image.keys.v1+json"

const maxSets = 8 // of one image

// Found is what lies beside an image.
type Found struct {
	Keys      Set             // of all sets together
	Manifests []digest.Digest // of the sets
	Broken    []string        // why a set could not be read
}

// Fetch reads the key sets of the image whose manifest has the digest subject.
// None is not an error, and neither is one that is not well formed: it is left
// out. An error means that the registry did not deliver.
func Fetch(ctx context.Context, src registry.Source, subject digest.Digest) (Found, error) {
	f := Found{Keys: Set{}}
	list, err := registry.ListReferrers(ctx, src, subject)
	if err != nil {
		return f, fmt.Errorf("key sets: %w", err)
	}
	for _, desc := range list {
		if desc.ArtifactType != ArtifactType {
			continue
		}
		if len(f.Manifests)+len(f.Broken) == maxSets {
			f.Broken = append(f.Broken, fmt.Sprintf("more than %d key sets", maxSets))
			break
		}
		s, err := fetch(ctx, src, desc.Digest, subject)
		switch {
		case err == nil:
			f.Manifests = append(f.Manifests, desc.Digest)
			for d, keys := range s {
				f.Keys[d] = append(f.Keys[d], keys...)
			}
		case broken(err):
			f.Broken = append(f.Broken, fmt.Sprintf("%s: %v", desc.Digest, err))
		default:
			return f, fmt.Errorf("key set %s: %w", desc.Digest, err)
		}
	}
	return f, nil
}

// formError says that a set is not one.
type formError struct{ error }

func (e *formError) Unwrap() error { return e.error }

func broken(err error) bool {
	_, form := errors.AsType[*formError](err)
	_, digest := errors.AsType[*registry.DigestError](err)
	_, size := errors.AsType[*registry.SizeError](err)
	return form || digest || size || errors.Is(err, registry.ErrMalformed) || errors.Is(err, registry.ErrNotFound)
}

func fetch(ctx context.Context, src registry.Source, d, subject digest.Digest) (Set, error) {
	m, err := src.Manifest(ctx, d.String())
	if err != nil {
		return nil, err
	}
	doc, err := m.Image()
	if err != nil {
		return nil, err
	}
	if doc.ArtifactType != ArtifactType || doc.Subject == nil || doc.Subject.Digest != subject ||
		len(doc.Layers) != 1 || doc.Layers[0].MediaType != ArtifactType {
		return nil, &formError{errors.New("not a key set of this image")}
	}
	raw, err := registry.ReadBlob(ctx, src, doc.Layers[0], maxSet)
	if err != nil {
		return nil, err
	}
	s, err := Parse(raw)
	if err != nil {
		return nil, &formError{err}
	}
	return s, nil
}

// Push stores a set beside the image whose manifest is subject.
func Push(ctx context.Context, to registry.Store, subject ocispec.Descriptor, s Set) (registry.Manifest, error) {
	var none registry.Manifest
	raw, err := s.Marshal()
	if err != nil {
		return none, err
	}
	if len(raw) > maxSet {
		return none, fmt.Errorf("a key set of %d bytes is too large", len(raw))
	}
	layer, err := to.PushBlob(ctx, bytes.NewReader(raw))
	if err != nil {
		return none, err
	}
	layer.MediaType = ArtifactType
	config, err := to.PushBlob(ctx, bytes.NewReader(ocispec.DescriptorEmptyJSON.Data))
	if err != nil {
		return none, err
	}
	config.MediaType = ArtifactType // some registries list it as the artifact type
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType,
		Config: config, Layers: []ocispec.Descriptor{layer}, Subject: &subject,
	})
	if err != nil {
		return none, err
	}
	m, err := registry.Attach(ctx, to, manifest)
	if err != nil {
		return none, fmt.Errorf("push the key set: %w", err)
	}
	return m, nil
}
