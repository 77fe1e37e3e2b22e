package erofs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// ErrImage says that bytes are no image as [WriteEntries] makes it.
var ErrImage = errors.New("not an image of this kind")

// Limits of an image that is read.
const (
	maxRead    = 2 << 30 // bytes
	maxEntries = 100_000
)

// ReadEntries reads an image that [WriteEntries] made: it returns the files that,
// written again, are the same bytes. Any other image is refused, so nothing can
// lie between the files.
func ReadEntries(ctx context.Context, image []byte) ([]Entry, error) {
	if len(image) < 2*BlockSize || len(image) > maxRead {
		return nil, fmt.Errorf("%w: %d bytes", ErrImage, len(image))
	}
	r := &reader{image: image}
	le := binary.LittleEndian
	sb := image[superOffset:]
	if le.Uint32(sb) != magic || sb[12] != 12 {
		return nil, fmt.Errorf("%w: no superblock", ErrImage)
	}
	if err := r.read("/", uint64(le.Uint16(sb[14:]))); err != nil {
		return nil, err
	}
	var again bytes.Buffer
	again.Grow(len(image))
	if _, err := WriteEntries(ctx, &again, r.entries); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	if !bytes.Equal(again.Bytes(), image) {
		return nil, fmt.Errorf("%w: there is more in it than its files", ErrImage)
	}
	return r.entries, nil
}

type reader struct {
	image   []byte
	entries []Entry
	bytes   int // of all content
}

// read reads the file of that number, and those below it.
func (r *reader) read(name string, nid uint64) error {
	if len(r.entries) == maxEntries || len(name) > 4096 {
		return fmt.Errorf("%w: more than %d files, or too deep", ErrImage, maxEntries)
	}
	mode, content, err := r.inode(nid)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// Content that lies in the image once can be named often; together it
	// cannot be more than there is.
	if r.bytes += len(content); r.bytes > len(r.image) {
		return fmt.Errorf("%w: it has more content than bytes", ErrImage)
	}
	e := Entry{Path: name, Mode: fs.FileMode(mode & 0o777)}
	for bit, as := range map[uint32]fs.FileMode{unix.S_ISVTX: fs.ModeSticky, unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid} {
		if mode&bit != 0 {
			e.Mode |= as
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Content = content
	case unix.S_IFLNK:
		e.Mode, e.Target = e.Mode|fs.ModeSymlink, string(content)
	case unix.S_IFDIR:
		e.Mode |= fs.ModeDir
		r.entries = append(r.entries, e)
		return r.directory(name, content)
	default:
		return fmt.Errorf("%w: %s has mode %o", ErrImage, name, mode)
	}
	r.entries = append(r.entries, e)
	return nil
}

// inode returns the mode and the content of a file.
func (r *reader) inode(nid uint64) (uint32, []byte, error) {
	le := binary.LittleEndian
	if nid > uint64(len(r.image))/slot {
		return 0, nil, fmt.Errorf("%w: inode %d", ErrImage, nid)
	}
	at := nid * slot
	if at+inodeSize > uint64(len(r.image)) {
		return 0, nil, fmt.Errorf("%w: inode %d", ErrImage, nid)
	}
	b := r.image[at : at+inodeSize]
	layout, size, start := dataLayout(le.Uint16(b)>>1), le.Uint64(b[8:]), uint64(le.Uint32(b[16:]))
	if le.Uint16(b)&1 == 0 || le.Uint16(b[2:]) != 0 || layout != plain && layout != inline || size > uint64(len(r.image)) {
		return 0, nil, fmt.Errorf("%w: inode %d", ErrImage, nid)
	}
	whole, beside := size, uint64(0)
	if layout == inline {
		beside = size % BlockSize
		whole -= beside
	}
	if whole > 0 && (start > uint64(len(r.image))/BlockSize || start*BlockSize+whole > uint64(len(r.image))) || at+inodeSize+beside > uint64(len(r.image)) {
		return 0, nil, fmt.Errorf("%w: the content of inode %d", ErrImage, nid)
	}
	content := make([]byte, 0, size)
	if whole > 0 {
		content = append(content, r.image[start*BlockSize:][:whole]...)
	}
	content = append(content, r.image[at+inodeSize:][:beside]...)
	return uint32(le.Uint16(b[4:])), content, nil
}

// directory reads the blocks of a directory (struct erofs_dirent).
func (r *reader) directory(name string, content []byte) error {
	le := binary.LittleEndian
	for ; len(content) > 0; content = content[min(BlockSize, len(content)):] {
		block := content[:min(BlockSize, len(content))]
		if len(block) < entrySize {
			return fmt.Errorf("%w: directory %s", ErrImage, name)
		}
		names := int(le.Uint16(block[8:])) // where the first name begins
		if names == 0 || names%entrySize != 0 || names > len(block) {
			return fmt.Errorf("%w: directory %s", ErrImage, name)
		}
		for at := 0; at < names; at += entrySize {
			begin, end := int(le.Uint16(block[at+8:])), len(block)
			if at+entrySize < names {
				end = int(le.Uint16(block[at+entrySize+8:]))
			}
			if begin < names || end < begin || end > len(block) {
				return fmt.Errorf("%w: directory %s", ErrImage, name)
			}
			child := string(bytes.TrimRight(block[begin:end], "\x00"))
			if child == "." || child == ".." {
				continue
			}
			if child == "" || path.Base(child) != child {
				return fmt.Errorf("%w: directory %s has %.80q", ErrImage, name, child)
			}
			if err := r.read(path.Join(name, child), le.Uint64(block[at:])); err != nil {
				return err
			}
		}
	}
	return nil
}
