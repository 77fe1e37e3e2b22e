package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutPrefix marks an OCI image layout in the names that tools take.
const layoutPrefix = "oci:"

// A Layout is an OCI image layout directory (image-spec, image-layout.md). It
// is for tools on a trusted machine and takes no lock: one writer at a time.
type Layout struct{ dir string }

// ParseLayout splits "oci:DIR[:tag]". It reports false for other names. The
// default tag is "latest".
func ParseLayout(s string) (dir, tag string, ok bool) {
	rest, ok := strings.CutPrefix(s, layoutPrefix)
	if !ok {
		return "", "", false
	}
	if i := strings.LastIndexByte(rest, ':'); i > 0 && isTag(rest[i+1:]) {
		return rest[:i], rest[i+1:], true
	}
	return rest, defaultTag, true
}

// OpenLayout opens an existing layout.
func OpenLayout(dir string) (*Layout, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageLayoutFile))
	if err != nil {
		return nil, fmt.Errorf("open OCI layout: %w", err)
	}
	var l ocispec.ImageLayout
	if err := json.Unmarshal(raw, &l); err != nil || l.Version != ocispec.ImageLayoutVersion {
		return nil, malformed("%s is not an OCI layout of version %s", dir, ocispec.ImageLayoutVersion)
	}
	return &Layout{dir: dir}, nil
}

// CreateLayout opens a layout, making it first where there is none.
func CreateLayout(dir string) (*Layout, error) {
	if l, err := OpenLayout(dir); !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	if err := os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"), 0o755); err != nil {
		return nil, err
	}
	l := &Layout{dir: dir}
	if err := l.writeIndex(&ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	return l, os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), raw, 0o644)
}

func (l *Layout) blobPath(d digest.Digest) string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (l *Layout) index() (*ocispec.Index, error) {
	raw, err := readLimited(filepath.Join(l.dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	m, err := newManifest(raw, ocispec.MediaTypeImageIndex, "")
	if err != nil {
		return nil, err
	}
	return m.Index()
}

func (l *Layout) writeIndex(i *ocispec.Index) error {
	raw, err := json.Marshal(i)
	if err != nil {
		return err
	}
	tmp := filepath.Join(l.dir, "."+ocispec.ImageIndexFile+".new")
	if err := os.WriteFile(tmp, raw, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(l.dir, ocispec.ImageIndexFile))
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err == nil && len(raw) > MaxManifest {
		err = malformed("%s has more than %d bytes", path, MaxManifest)
	}
	return raw, err
}

// Manifest finds a manifest by tag (the ref.name annotation) or digest.
func (l *Layout) Manifest(_ context.Context, version string) (Manifest, error) {
	wanted, mediaType := digest.Digest(version), ""
	if !strings.Contains(version, ":") {
		index, err := l.index()
		if err != nil {
			return Manifest{}, err
		}
		i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == version })
		if i < 0 && version == defaultTag && onlyUnnamed(index) {
			i = 0
		}
		if i < 0 {
			return Manifest{}, fmt.Errorf("%w: no tag %q in %s", ErrNotFound, version, l.dir)
		}
		wanted, mediaType = index.Manifests[i].Digest, index.Manifests[i].MediaType
	}
	if err := CheckDigest(wanted); err != nil {
		return Manifest{}, malformed("%w", err)
	}
	raw, err := readLimited(l.blobPath(wanted))
	if err != nil {
		return Manifest{}, err
	}
	return newManifest(raw, mediaType, wanted)
}

// onlyUnnamed reports whether a layout holds one image without a name, as many
// builders write it: then there is no doubt which one "oci:DIR" means.
func onlyUnnamed(index *ocispec.Index) bool {
	return len(index.Manifests) == 1 && index.Manifests[0].Annotations[ocispec.AnnotationRefName] == ""
}

// Blob opens a blob; the reader verifies as [Repository.Blob] does.
func (l *Layout) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	f, err := os.Open(l.blobPath(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return newVerifyReader(f, desc, nil), nil
}

// PushBlob writes a blob next to its place and renames it there.
func (l *Layout) PushBlob(_ context.Context, r io.Reader) (ocispec.Descriptor, error) {
	m := newMeasure(r)
	f, err := os.CreateTemp(filepath.Join(l.dir, ocispec.ImageBlobsDir, "sha256"), ".new-*")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	_, err = io.Copy(f, m)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.blobPath(m.descriptor().Digest))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return ocispec.Descriptor{}, fmt.Errorf("write a blob: %w", err)
	}
	return m.descriptor(), nil
}

// PushManifest stores a manifest and points the tag at it.
func (l *Layout) PushManifest(ctx context.Context, tag, mediaType string, raw []byte) (Manifest, error) {
	m, err := newManifest(raw, mediaType, "")
	if err != nil {
		return Manifest{}, err
	}
	if _, err := l.PushBlob(ctx, strings.NewReader(string(raw))); err != nil {
		return Manifest{}, err
	}
	if tag == "" {
		return m, nil
	}
	index, err := l.index()
	if err != nil {
		return Manifest{}, err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tag })
	desc := m.Descriptor()
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	index.Manifests = append(index.Manifests, desc)
	return m, l.writeIndex(index)
}
