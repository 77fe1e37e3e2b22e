package erofs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Write writes the directory's image to w and returns the number of its blocks.
// Nobody may change the directory meanwhile; a file that has another length than
// at first is an error.
func Write(ctx context.Context, w io.Writer, dir string) (int64, error) {
	s := &scanner{linked: map[uint64]*node{}}
	root, err := s.scan(ctx, dir, nil)
	if err != nil {
		return 0, fmt.Errorf("read the directory: %w", err)
	}
	if root.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, errors.New("an image is that of a directory")
	}
	return s.write(ctx, w, root)
}

func (s *scanner) write(ctx context.Context, w io.Writer, root *node) (int64, error) {
	total, err := s.place()
	if err != nil {
		return 0, err
	}
	out := &writer{ctx: ctx, w: bufio.NewWriterSize(w, 1<<20)}
	if err := out.image(s.nodes, root, total); err != nil {
		return 0, fmt.Errorf("write the image: %w", err)
	}
	return int64(total), nil
}

// place gives every inode and all content its place, and returns the number of
// blocks.
func (s *scanner) place() (uint32, error) {
	at := int64(BlockSize) // behind the superblock; numbers count from before it, so none is 0
	for _, n := range s.nodes {
		size := int64(inodeSize + len(n.attributes))
		if rest := n.size % BlockSize; n.layout == plain && rest > 0 && size+rest <= BlockSize {
			n.layout = inline
		}
		head := int64(inodeSize) // must not cross into the next block
		if n.layout == inline {
			head = size + int64(n.beside())
		}
		if at%BlockSize+head > BlockSize {
			at += -at & (BlockSize - 1)
		}
		n.nid = uint64(at / slot)
		at += size + int64(n.beside())
		at += -at & (slot - 1)
	}
	next := (at + BlockSize - 1) / BlockSize
	for _, n := range s.nodes {
		n.start = uint32(next)
		next += int64(n.blocks())
		if next >= int64(noBlock) {
			return 0, errors.New("the image has more than 16 TiB")
		}
	}
	return uint32(next), nil
}

// writer writes an image from the front to the back.
type writer struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	w   *bufio.Writer
	off int64
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.off += int64(n)
	return n, err
}

// until fills up with zeros.
func (w *writer) until(off int64) error {
	for w.off < off {
		if _, err := w.Write(zeros[:min(off-w.off, BlockSize)]); err != nil {
			return err
		}
	}
	return nil
}

var zeros [BlockSize]byte

func (w *writer) image(nodes []*node, root *node, total uint32) error {
	holes := false
	for _, n := range nodes {
		holes = holes || n.layout == chunks
	}
	if _, err := w.Write(superblock(uint16(root.nid), uint64(len(nodes)), total, holes)); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := w.inode(n); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	for _, n := range nodes {
		if n.blocks() == 0 {
			continue
		}
		if err := w.blocks(n); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	if err := w.until(int64(total) * BlockSize); err != nil {
		return err
	}
	return w.w.Flush()
}

// inode writes an inode and what lies beside it.
func (w *writer) inode(n *node) error {
	if err := w.until(int64(n.nid) * slot); err != nil {
		return err
	}
	if _, err := w.Write(n.marshal()); err != nil {
		return err
	}
	switch {
	case n.layout == chunks:
		next := n.start
		for i, hole := range n.holes {
			at := noBlock
			if !hole {
				at = next
				next += uint32((min(n.size-int64(i)<<n.chunkBits, 1<<n.chunkBits) + BlockSize - 1) / BlockSize)
			}
			if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, at)); err != nil {
				return err
			}
		}
	case n.layout != inline:
	case n.entries != nil:
		all := directory(n.entries)
		_, err := w.Write(all[len(all)-n.beside():])
		return err
	case n.target != "":
		_, err := io.WriteString(w, n.target[len(n.target)-n.beside():])
		return err
	default:
		return w.tail(n)
	}
	return nil
}

// tail writes the end of a file's content.
func (w *writer) tail(n *node) error {
	f, err := n.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	size := int64(n.beside())
	return w.copy(io.NewSectionReader(f, n.size-size, size), size)
}

// blocks writes the content that has blocks of its own.
func (w *writer) blocks(n *node) error {
	if err := w.until(int64(n.start) * BlockSize); err != nil {
		return err
	}
	if n.entries != nil {
		all := directory(n.entries)
		if n.layout == inline {
			all = all[:len(all)-n.beside()]
		}
		_, err := w.Write(all)
		return err
	}
	if n.target != "" {
		_, err := io.WriteString(w, n.target)
		return err
	}
	return n.content(func(r io.Reader, size int64) error {
		if err := w.until(w.off + -w.off&(BlockSize-1)); err != nil { // chunks begin at blocks
			return err
		}
		return w.copy(r, size)
	})
}

func (w *writer) copy(r io.Reader, size int64) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	n, err := io.CopyN(w, r, size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it has lost content: %d bytes of %d", n, size)
	}
	return err
}
