package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits bound what one layer may do to the disk. A zero member means the
// default, never "no limit".
type Limits struct {
	Entries int   // tar entries and directories that they imply; default 2 Mi
	Bytes   int64 // content of all files together, holes included; default 128 GiB
	Archive int64 // length of the archive; default 136 GiB
	Depth   int   // components of a path; default 256
}

const (
	defaultEntries = 2 << 20
	defaultBytes   = 128 << 30
	defaultArchive = 136 << 30
	defaultDepth   = 256
	maxPath        = unix.PathMax - 1
	maxName        = 255
	maxXattr       = 64 << 10 // bytes of one attribute
)

func (l Limits) filled() Limits {
	if l.Entries == 0 {
		l.Entries = defaultEntries
	}
	if l.Bytes == 0 {
		l.Bytes = defaultBytes
	}
	if l.Archive == 0 {
		l.Archive = defaultArchive
	}
	if l.Depth == 0 {
		l.Depth = defaultDepth
	}
	return l
}

// Result tells what was unpacked.
type Result struct {
	Entries int
	Bytes   int64

	// Implied are the directories, by the archive's path, that entries lie in
	// but that the archive does not describe, "." among them. They were made with
	// mode 0755 and owner 0:0; in an image they have the metadata of the layers
	// below, which are not known here.
	Implied []string
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
func Apply(ctx context.Context, r io.Reader, dir string, l Limits, options ...Option) (Result, error) {
	root, err := openLayer(dir)
	if err != nil {
		return Result{}, err
	}
	defer root.close()
	l = l.filled()
	u := &unpacker{
		root: root, limits: l, buf: make([]byte, copyBuffer), asRoot: os.Geteuid() == 0 && os.Getegid() == 0,
		src:  &source{r: r, stop: ctx.Err, left: l.Archive, limit: l.Archive, headers: -1},
		dirs: map[uint64]dirTimes{}, implied: map[string]struct{}{".": {}}, opaqueAttr: XattrOpaque,
	}
	for _, o := range options {
		o(u)
	}
	u.small = newFinisher(u.finishFile)
	err = u.files()
	if err == nil {
		_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{u.src}, u.buf)
	}
	if u.src.err != nil { // the stream itself failed; the archive is not to blame
		return Result{}, u.src.err
	}
	if err == nil {
		err = u.setDirTimes()
	}
	if err != nil {
		return Result{}, err
	}
	u.result.Implied = slices.Sorted(maps.Keys(u.implied))
	return u.result, nil
}

type unpacker struct {
	root    *layerDir
	src     *source
	limits  Limits
	result  Result
	asRoot  bool                // what is made belongs to 0:0 unless the directory's group says otherwise
	unowned bool                // see Unowned
	dirs    map[uint64]dirTimes // by inode: set at the end
	implied map[string]struct{}
	made    int // entries and implied directories
	buf     []byte
	small   *finisher // of small files

	opaqueAttr string // marks directories that hide what lies below
}

// files makes all that the archive has.
func (u *unpacker) files() (err error) {
	defer func() {
		if earlier := u.small.close(); earlier != nil {
			err = earlier
		}
	}()
	return u.entries(tar.NewReader(u.src))
}

func (u *unpacker) entries(tr *tar.Reader) error {
	for {
		var hdr *tar.Header
		err := u.src.header(func() (err error) {
			hdr, err = tr.Next()
			return err
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if _, ok := errors.AsType[*FormatError](err); ok {
			return err
		}
		if err != nil {
			return refuse("", "not a tar archive: %w", err)
		}
		u.result.Entries++
		err = u.count()
		if err == nil {
			err = u.entry(hdr, tr)
		}
		if err == nil { // content that no entry of its kind should have
			if _, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{tr}, u.buf); err != nil {
				err = cut(err)
			}
		}
		if err != nil {
			return ofEntry(hdr.Name, err)
		}
	}
}

// count counts something that the archive makes.
func (u *unpacker) count() error {
	if u.made++; u.made > u.limits.Entries {
		return refuse("", "more than %d entries", u.limits.Entries)
	}
	return nil
}

// imply notes a directory that the archive uses but has not described.
func (u *unpacker) imply(dir string) error {
	u.implied[dir] = struct{}{}
	return u.count()
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
