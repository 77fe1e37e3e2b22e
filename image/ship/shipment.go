package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// What is asked for makes no sense for an image that is encrypted, or is not.
var (
	ErrEncrypted = errors.New("the layer is encrypted already")
	ErrPlain     = errors.New("the image has no encrypted layer")
)

// shipment is what is taken from the source: one image, or an index with all of
// its images.
type shipment struct {
	images []*registry.Resolved
	index  *ocispec.Index // what will be written above the images, one entry for each; nil: nothing
}

// attestationMark is what BuildKit writes on the entries of an index that are no
// images but speak about one, and its digest.
const (
	attestationMark    = "vnd.docker.reference.type"
	attestationSubject = "vnd.docker.reference.digest"
)

func readShipment(ctx context.Context, from *place, p registry.Platform) (*shipment, error) {
	root, err := from.source.Manifest(ctx, from.version)
	if err != nil {
		return nil, err
	}
	if !root.IsIndex() || p != (registry.Platform{}) {
		if p == (registry.Platform{}) {
			p = registry.Native()
		}
		one, err := registry.Resolve(ctx, from.source, from.version, p)
		return &shipment{images: []*registry.Resolved{one}}, err
	}
	index, err := root.Index()
	if err != nil {
		return nil, err
	}
	s := &shipment{index: &ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Annotations: index.Annotations,
	}}
	for _, d := range index.Manifests {
		if d.Annotations[attestationMark] != "" {
			continue
		}
		m, err := from.source.Manifest(ctx, d.Digest.String())
		if err != nil {
			return nil, err
		}
		image, err := m.Image()
		if err != nil {
			return nil, fmt.Errorf("manifest %s of the index: %w", d.Digest, err)
		}
		s.images = append(s.images, &registry.Resolved{Root: root, Manifest: m, Image: image})
		s.index.Manifests = append(s.index.Manifests, d)
	}
	if len(s.images) == 0 {
		return nil, errors.New("the index holds no image")
	}
	return s, nil
}

// plainLayer is a layer of the source.
type plainLayer struct {
	ocispec.Descriptor
	encrypted string // its media type when it is encrypted
}

// layers returns the different layers of all images.
func (s *shipment) layers() ([]plainLayer, error) {
	seen := map[digest.Digest]string{}
	var all []plainLayer
	for _, image := range s.images {
		if err := registry.CheckConfigType(image.Image.Config); err != nil {
			return nil, err
		}
		for i, l := range image.Image.Layers {
			t, err := encryptedType(l.MediaType)
			if err != nil {
				return nil, fmt.Errorf("layer %d: %w", i, err)
			}
			was, known := seen[l.Digest]
			if known && was != t {
				return nil, fmt.Errorf("layer %d: %s has two media types", i, l.Digest)
			}
			seen[l.Digest] = t
			if !known {
				all = append(all, plainLayer{Descriptor: l, encrypted: t})
			}
		}
	}
	// Large ones first, so that none of them is left over at the end.
	slices.SortStableFunc(all, func(a, b plainLayer) int { return int(min(max(b.Size-a.Size, -1), 1)) })
	return all, nil
}

func pushIndex(ctx context.Context, to *place, index *ocispec.Index) (registry.Manifest, error) {
	raw, err := json.Marshal(index)
	if err != nil {
		return registry.Manifest{}, err
	}
	return to.sink.PushManifest(ctx, "", ocispec.MediaTypeImageIndex, raw)
}

func platformText(p *ocispec.Platform) string {
	if p == nil {
		return ""
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// encryptedType maps a layer's media type to its encrypted form.
func encryptedType(t string) (string, error) {
	if strings.HasSuffix(t, crypt.MediaSuffix) {
		return "", ErrEncrypted
	}
	const docker = "application/vnd.docker.image.rootfs.diff.tar"
	plain := map[string]string{docker: ocispec.MediaTypeImageLayer, docker + ".gzip": ocispec.MediaTypeImageLayerGzip, docker + ".zstd": ocispec.MediaTypeImageLayerZstd}
	if oci, ok := plain[t]; ok {
		t = oci
	}
	switch t {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd:
		return t + crypt.MediaSuffix, nil
	}
	return "", fmt.Errorf("layers of media type %.100q are not supported", t)
}
