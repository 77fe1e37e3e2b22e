package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/inflate"
)

type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

const (
	dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"

	maxZstdWindow = 64 << 20 // bytes of memory per layer; level 19 needs 8 MiB, level 22 128 MiB

	// A layer may expand to freeExpansion bytes whatever its size, and beyond
	// that by maxRatio; deflate itself cannot exceed 1032.
	freeExpansion = 1 << 30
	maxRatio      = 1100
)

// layerType reads a layer's media type (guest-protocol 14.3 step 8).
// Non-distributable and foreign layers are refused: their bytes come from
// elsewhere by design.
func layerType(mediaType string) (c compression, encrypted bool, err error) {
	base, encrypted := strings.CutSuffix(mediaType, crypt.MediaSuffix)
	switch base {
	case ocispec.MediaTypeImageLayer:
		return plain, encrypted, nil
	case ocispec.MediaTypeImageLayerGzip:
		return gzipped, encrypted, nil
	case ocispec.MediaTypeImageLayerZstd:
		return zstandard, encrypted, nil
	}
	if !encrypted {
		switch base {
		case dockerLayer:
			return plain, false, nil
		case dockerLayer + ".gzip":
			return gzipped, false, nil
		case dockerLayer + ".zstd":
			return zstandard, false, nil
		}
	}
	return 0, false, fmt.Errorf("layers of media type %.100q are not supported", mediaType)
}

// decompress wraps r, which is compressed, and waits until there is memory for
// that. The returned function gives it back.
func (p *Puller) decompress(ctx context.Context, r *countingReader, c compression) (io.Reader, func(), error) {
	if c == gzipped {
		open := ownGzip
		if p.cfg.LibraryGzip {
			open = otherGzip
		}
		z, err := open(r)
		if err != nil {
			return nil, nil, compressionError(r, err)
		}
		return &expansion{src: r, r: z}, func() {}, nil
	}
	z, err := p.windows.open(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	return &expansion{src: r, r: z}, z.close, nil
}

func ownGzip(r io.Reader) (io.Reader, error)   { return inflate.NewReader(r) }
func otherGzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) } // Close frees nothing

// countingReader counts what goes into a decompressor and remembers the
// stream's own error.
type countingReader struct {
	r   io.Reader
	n   int64
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// compressionError tells a bad stream from a stream that could not be read.
func compressionError(src *countingReader, err error) error {
	if src.err != nil {
		return src.err
	}
	return fmt.Errorf("%w: %w", errCompression, err)
}

// expansion stops decompression bombs.
type expansion struct {
	src *countingReader
	r   io.Reader
	n   int64
}

func (e *expansion) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.n += int64(n)
	if e.n > freeExpansion && e.n/maxRatio > e.src.n {
		return 0, fmt.Errorf("%w: %d bytes expand to more than %d", errCompression, e.src.n, e.n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = compressionError(e.src, err)
	}
	return n, err
}
