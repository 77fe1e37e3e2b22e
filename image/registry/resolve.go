package registry

import (
	"bytes"
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is where manifests and blobs come from: a [*Repository] or a
// [*Layout].
type Source interface {
	Manifest(ctx context.Context, version string) (Manifest, error)
	Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// Resolved is an image for one platform.
type Resolved struct {
	Root     Manifest // what the version pointed to: an index, or the manifest itself
	Manifest Manifest // the platform's manifest
	Image    *ocispec.Manifest
}

// Resolve finds the image for p. An index is followed once; an index inside an
// index is refused.
func Resolve(ctx context.Context, src Source, version string, p Platform) (*Resolved, error) {
	root, err := src.Manifest(ctx, version)
	if err != nil {
		return nil, err
	}
	m := root
	if root.IsIndex() {
		index, err := root.Index()
		if err != nil {
			return nil, err
		}
		desc, err := p.choose(index)
		if err != nil {
			return nil, err
		}
		if m, err = src.Manifest(ctx, desc.Digest.String()); err != nil {
			return nil, err
		}
		if m.MediaType != desc.MediaType || int64(len(m.Raw)) != desc.Size {
			return nil, malformed("manifest %s is not as its index describes it", m.Digest)
		}
	}
	image, err := m.Image()
	if err != nil {
		return nil, err
	}
	return &Resolved{Root: root, Manifest: m, Image: image}, nil
}

// ReadBlob reads and verifies a small blob: a config or a signature payload.
// limit is in bytes.
func ReadBlob(ctx context.Context, src Source, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, malformed("blob %s has %d bytes, at most %d are read", desc.Digest, desc.Size, limit)
	}
	for {
		raw, err := readBlob(ctx, src, desc)
		if err == nil || !Elsewhere(src, desc, err) {
			return raw, err
		}
	}
}

func readBlob(ctx context.Context, src Source, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(rc); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
