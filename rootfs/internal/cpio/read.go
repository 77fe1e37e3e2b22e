package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// ErrArchive says that bytes are no archive as [Write] makes it.
var ErrArchive = errors.New("not an initramfs of this kind")

const (
	headerSize = 110
	maxName    = 4096
)

// Read reads an archive that [Write] made. Any other is refused: written again,
// what was read is the same bytes, so nothing can lie between or behind the files.
func Read(raw []byte) (*tree.Tree, error) {
	t := tree.Empty()
	rest := raw
	for {
		name, mode, content, next, err := record(rest, len(raw)-len(rest))
		if err != nil {
			return nil, err
		}
		if name == trailer {
			break
		}
		if err := add(t, name, mode, content); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		rest = next
	}
	var again bytes.Buffer
	again.Grow(len(raw))
	if err := Write(&again, t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if !bytes.Equal(again.Bytes(), raw) {
		return nil, fmt.Errorf("%w: there is more in it than its files", ErrArchive)
	}
	return t, nil
}

// record takes the next record, which begins at an offset of the archive.
func record(raw []byte, at int) (name string, mode uint64, content, rest []byte, err error) {
	bad := fmt.Errorf("%w: no record at byte %d", ErrArchive, at)
	if len(raw) < headerSize || string(raw[:6]) != magic {
		return "", 0, nil, nil, bad
	}
	field := func(i int) uint64 {
		n, errField := strconv.ParseUint(string(raw[6+8*i:14+8*i]), 16, 32)
		if errField != nil {
			err = bad
		}
		return n
	}
	mode, size, nameSize := field(1), field(6), field(11)
	if err != nil || nameSize < 2 || nameSize > maxName {
		return "", 0, nil, nil, bad
	}
	// Lengths count up to the next multiple of four from the archive's beginning.
	begin := headerSize + nameSize
	begin += -(begin + uint64(at)) & 3
	end := begin + size
	end += -(end + uint64(at)) & 3
	if end > uint64(len(raw)) {
		return "", 0, nil, nil, bad
	}
	return string(raw[headerSize : headerSize+nameSize-1]), mode, raw[begin : begin+size], raw[end:], nil
}

func add(t *tree.Tree, name string, mode uint64, content []byte) error {
	f := tree.File{Mode: fs.FileMode(mode & 0o777)}
	switch mode &^ 0o7777 {
	case typeDirectory:
		f.Mode |= fs.ModeDir
	case typeSymlink:
		f.Mode, f.Target = f.Mode|fs.ModeSymlink, string(content)
	case typeRegular:
		f.Content = content
	default:
		return fmt.Errorf("%.100q has mode %o", name, mode)
	}
	if mode&sticky != 0 {
		f.Mode |= fs.ModeSticky
	}
	if name == "." {
		name = ""
	}
	p := "/" + name
	if path.Clean(p) != p {
		return fmt.Errorf("path %.100q", name)
	}
	return t.Put(p, f)
}
