package deb

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/unxz"
)

// Limits of a package.
const (
	MaxFile    = 512 << 20 // bytes of one file
	maxContent = 4 << 30   // bytes of the tar
	maxEntries = 200_000
	maxWindow  = 128 << 20 // of a compressor
)

// A File is what a package has under a name. Directories are not told: who
// takes a file makes those above it.
type File struct {
	Path   string      // absolute and clean
	Mode   fs.FileMode // permissions, setuid, setgid and sticky, and ModeSymlink
	Target string      // of a symlink
	Size   int64
}

// Walk calls visit with each regular file, hard link and symlink of the package
// that r has, in the order of the archive. The content of a regular file can be
// read within the call. A hard link comes as a file whose Target is the path of
// the other name, without ModeSymlink.
func Walk(ctx context.Context, r io.Reader, visit func(File, io.Reader) error) error {
	name, compressed, err := data(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return err
	}
	plain, stop, err := decompress(name, compressed)
	if err != nil {
		return err
	}
	defer stop()
	t := tar.NewReader(io.LimitReader(plain, maxContent))
	for range maxEntries {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrPackage, err)
		}
		f, wanted, err := file(h)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		if err := visit(f, t); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d files", ErrPackage, maxEntries)
}

func decompress(name string, r io.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	var err error
	switch strings.TrimPrefix(name, "data.tar") {
	case "":
		return r, nothing, nil
	case ".gz":
		var z *gzip.Reader
		if z, err = gzip.NewReader(r); err == nil {
			return z, nothing, nil
		}
	case ".xz":
		var z io.Reader
		if z, err = unxz.NewReader(r); err == nil {
			return bufio.NewReaderSize(z, 1<<20), nothing, nil
		}
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1)); err == nil {
			return z, z.Close, nil
		}
	default:
		return nil, nil, fmt.Errorf("%w: %.30q is compressed in a way that is not known", ErrPackage, name)
	}
	return nil, nil, fmt.Errorf("%w: %s: %w", ErrPackage, name, err)
}

// file is what a header says, if it is of a kind that images are made of.
func file(h *tar.Header) (File, bool, error) {
	if h.Size > MaxFile {
		return File{}, false, fmt.Errorf("%w: %.100q has %d bytes", ErrPackage, h.Name, h.Size)
	}
	name, err := clean(h.Name)
	if err != nil {
		return File{}, false, err
	}
	f := File{Path: name, Mode: h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky), Size: h.Size}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeSymlink:
		f.Mode, f.Target = fs.ModeSymlink|0o777, h.Linkname
	case tar.TypeLink:
		if f.Target, err = clean(h.Linkname); err != nil {
			return File{}, false, err
		}
	default:
		return File{}, false, nil
	}
	return f, true, nil
}

// clean makes a path of the archive absolute. One that would lead out of the
// root is refused, not bent.
func clean(name string) (string, error) {
	rel := path.Clean(strings.TrimLeft(name, "/"))
	if rel == ".." || strings.HasPrefix(rel, "../") || strings.ContainsRune(name, 0) || len(name) > 4096 {
		return "", fmt.Errorf("%w: path %.100q", ErrPackage, name)
	}
	return "/" + strings.TrimPrefix(rel, "."), nil
}
