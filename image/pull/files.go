package pull

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// maxFile bounds what [ReadFiles] reads, in bytes.
const maxFile = 1 << 20

// ReadFiles returns small files of an image by their paths, which have no leading
// slash: for who must know what is in an image and does not run it. What the
// image does not have, or has deleted, is not in the result. Layers are verified
// and read from the uppermost one down, none further than is needed; an encrypted
// one is an error, and so is a file that is reached by links.
func ReadFiles(ctx context.Context, src registry.Source, image *ocispec.Manifest, names ...string) (map[string][]byte, error) {
	found := map[string][]byte{}
	wanted := slices.Clone(names)
	for _, desc := range slices.Backward(image.Layers) {
		if len(wanted) == 0 {
			break
		}
		s := newSearch(wanted)
		if err := s.layer(ctx, src, desc); err != nil {
			return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
		}
		for name, raw := range s.found {
			found[name] = raw
		}
		wanted = slices.DeleteFunc(wanted, func(name string) bool { return s.settled[name] })
	}
	return found, nil
}

// search looks for files in one layer.
type search struct {
	wanted  []string
	found   map[string][]byte
	settled map[string]bool // what layers below have of them does not count
	limits  unpack.Limits   // those of layers that are unpacked
}

func newSearch(wanted []string) *search {
	return &search{wanted: wanted, found: map[string][]byte{}, settled: map[string]bool{}}
}

func (s *search) layer(ctx context.Context, src registry.Source, desc ocispec.Descriptor) error {
	for {
		err := s.fetched(ctx, src, desc)
		if err == nil || !registry.Elsewhere(src, desc, err) {
			return err
		}
		*s = *newSearch(s.wanted) // what was not verified does not count
	}
}

// fetched reads the whole blob: its digest is known at the end.
func (s *search) fetched(ctx context.Context, src registry.Source, desc ocispec.Descriptor) error {
	c, encrypted, err := layerType(desc.MediaType)
	if err != nil {
		return err
	}
	if encrypted {
		return errors.New("it is encrypted")
	}
	blob, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }()
	in := &countingReader{r: blob}
	read := s.archive(ctx, in, c)
	if in.err != nil {
		return in.err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return read
}

// archive reads one layer's files.
func (s *search) archive(ctx context.Context, in *countingReader, c compression) error {
	if c == plain {
		return s.entries(tar.NewReader(s.limits.Bound(in)))
	}
	p := Puller{windows: newWindows()}
	r, release, err := p.decompress(ctx, in, c)
	if err != nil {
		return err
	}
	defer release()
	return s.entries(tar.NewReader(s.limits.Bound(r)))
}

// maxEntries of a layer are looked at.
const maxEntries = 2 << 20

func (s *search) entries(r *tar.Reader) error {
	for range maxEntries {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := s.entry(h, r); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d entries", maxEntries)
}

const (
	whiteout = ".wh."         // before the name of what is deleted
	opaque   = ".wh..wh..opq" // everything in the directory is
)

// entry takes one entry into account (OCI image-spec, layer.md).
func (s *search) entry(h *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	dir, base := path.Split(name)
	for _, w := range s.wanted {
		switch gone, isWhiteout := strings.CutPrefix(base, whiteout); {
		case base == opaque:
			if dir == "" || strings.HasPrefix(w, dir) {
				s.settled[w] = true
			}
		case isWhiteout:
			if gone = dir + gone; w == gone || strings.HasPrefix(w, gone+"/") {
				s.settled[w] = true
			}
		case strings.HasPrefix(w, name+"/") && h.Typeflag != tar.TypeDir:
			return fmt.Errorf("%s is no directory, and links are not followed", name)
		case w == name && h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%s is no file, and links are not followed", name)
		case w == name:
			raw, err := io.ReadAll(io.LimitReader(content, maxFile+1))
			if err != nil {
				return err
			}
			if len(raw) > maxFile {
				return fmt.Errorf("%s is larger than %d bytes", name, maxFile)
			}
			s.found[w], s.settled[w] = bytes.Clone(raw), true
		}
	}
	return nil
}
