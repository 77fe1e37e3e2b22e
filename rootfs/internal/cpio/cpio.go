// Package cpio writes an initramfs as the kernel reads it (Linux,
// Documentation/driver-api/early-userspace/buffer-format.rst): the "newc"
// format. Inode numbers count up, and owners, times and devices are zero, so
// that the same tree is the same bytes.
package cpio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// Types of files in a mode (inode(7)).
const (
	typeDirectory = 0o040000
	typeRegular   = 0o100000
	typeSymlink   = 0o120000
	sticky        = 0o001000
)

const (
	magic   = "070701"
	trailer = "TRAILER!!!"
)

// Write writes the tree as one archive, ended and filled up to 512 bytes.
func Write(w io.Writer, t *tree.Tree) error {
	out := &writer{w: bufio.NewWriterSize(w, 1<<20)}
	for i, p := range t.Paths() {
		f, _ := t.Get(p)
		name := p[1:]
		if p == "/" {
			name = "."
		}
		if err := out.entry(name, uint32(i+1), f); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	if err := out.record(trailer, 0, 0, 1, nil); err != nil {
		return err
	}
	if err := out.fill(512); err != nil {
		return err
	}
	return out.w.Flush()
}

type writer struct {
	w *bufio.Writer
	n int64
}

func (w *writer) entry(name string, inode uint32, f tree.File) error {
	mode, links, content := uint32(f.Mode.Perm()), uint32(1), f.Content
	if f.Mode&fs.ModeSticky != 0 {
		mode |= sticky
	}
	switch f.Mode.Type() {
	case fs.ModeDir:
		mode, links = mode|typeDirectory, 2
	case fs.ModeSymlink:
		mode, content = mode|typeSymlink, []byte(f.Target)
	case 0:
		mode |= typeRegular
	default:
		return fmt.Errorf("a file of type %v", f.Mode.Type())
	}
	return w.record(name, inode, mode, links, content)
}

// record writes a header, a name and content, each filled up to four bytes.
func (w *writer) record(name string, inode, mode, links uint32, content []byte) error {
	if int64(len(content)) >= 1<<32 {
		return errors.New("the format has no files of 4 GiB")
	}
	fields := []uint32{inode, mode, 0, 0, links, 0, uint32(len(content)), 0, 0, 0, 0, uint32(len(name) + 1), 0}
	header := []byte(magic)
	for _, f := range fields {
		header = fmt.Appendf(header, "%08x", f)
	}
	header = append(append(header, name...), 0)
	for _, part := range [][]byte{header, content} {
		n, err := w.w.Write(part)
		w.n += int64(n)
		if err != nil {
			return err
		}
		if err := w.fill(4); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) fill(to int64) error {
	n, err := w.w.Write(make([]byte, -w.n&(to-1)))
	w.n += int64(n)
	return err
}
