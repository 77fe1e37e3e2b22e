package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits bound what one layer may do to the disk. A zero member means the
// default, never "no limit".
type Limits struct {
	Entries int   // tar entries; default 2 Mi
	Bytes   int64 // content of all files together; default 128 GiB
	Depth   int   // components of a path; default 256
}

const (
	defaultEntries = 2 << 20
	defaultBytes   = 128 << 30
	defaultDepth   = 256
	maxPath        = unix.PathMax - 1
	maxName        = 255
	maxXattr       = 64 << 10 // bytes of one attribute
	copyBuffer     = 128 << 10
)

func (l Limits) filled() Limits {
	if l.Entries == 0 {
		l.Entries = defaultEntries
	}
	if l.Bytes == 0 {
		l.Bytes = defaultBytes
	}
	if l.Depth == 0 {
		l.Depth = defaultDepth
	}
	return l
}

// Result counts what was unpacked.
type Result struct {
	Entries int
	Bytes   int64
}

// A FormatError says that the archive is not acceptable: not a tar, beyond a
// limit, or with an entry that no layer may have.
type FormatError struct {
	Entry  string // name of the entry; empty for the archive as a whole
	Reason string
	err    error
}

func (e *FormatError) Error() string {
	s := "layer archive"
	if e.Entry != "" {
		s += fmt.Sprintf(": entry %.200q", e.Entry)
	}
	return s + ": " + e.Reason
}

// Unwrap returns the underlying error, if there is one.
func (e *FormatError) Unwrap() error { return e.err }

func refuse(entry, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &FormatError{Entry: entry, Reason: err.Error(), err: errors.Unwrap(err)}
}

// Apply unpacks the stream into dir, which must exist and be empty and must
// belong to the caller alone. It reads r to its end, also past the end of the
// archive, so that digests which are computed beneath cover every byte. On an
// error dir holds rubbish: the caller removes it. Errors are a [*FormatError],
// an error of r, or one of the file system.
func Apply(ctx context.Context, r io.Reader, dir string, l Limits) (Result, error) {
	root, err := openLayer(dir)
	if err != nil {
		return Result{}, err
	}
	defer root.close()
	u := &unpacker{root: root, limits: l.filled(), dirs: map[string]dirTime{}, buf: make([]byte, copyBuffer)}
	src := &sourceReader{r: r}
	if err := u.entries(ctx, tar.NewReader(src)); err != nil {
		if src.err != nil { // the stream itself failed; the archive is not to blame
			return Result{}, src.err
		}
		return Result{}, err
	}
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{src}, u.buf); err != nil {
		return Result{}, err
	}
	return u.result, u.setDirTimes()
}

// sourceReader remembers an error of the stream, so that it is not mistaken
// for a fault of the archive.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

type unpacker struct {
	root   *layerDir
	limits Limits
	result Result
	dirs   map[string]dirTime // directories whose times are set at the end
	buf    []byte
}

func (u *unpacker) entries(ctx context.Context, tr *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse("", "not a tar archive: %w", err)
		}
		if u.result.Entries++; u.result.Entries > u.limits.Entries {
			return refuse("", "more than %d entries", u.limits.Entries)
		}
		if err := u.entry(hdr, tr); err != nil {
			if _, ok := errors.AsType[*FormatError](err); ok {
				return err
			}
			return fmt.Errorf("entry %.200q: %w", hdr.Name, err)
		}
	}
}

// cleanPath turns a name of the archive into a path below the layer: "." for
// the layer itself. Names that climb out are refused, absolute ones are taken
// as relative, as every unpacker of the field does.
func (u *unpacker) cleanPath(entry, name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", refuse(entry, "bad path")
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", refuse(entry, "the path leaves the layer")
	}
	parts := strings.Split(p, "/")
	if len(parts) > u.limits.Depth {
		return "", refuse(entry, "the path is deeper than %d", u.limits.Depth)
	}
	for _, part := range parts {
		if len(part) > maxName {
			return "", refuse(entry, "a name is longer than %d bytes", maxName)
		}
	}
	return p, nil
}
