package erofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A node is one inode of the image.
type node struct {
	path       string // a name of it, for content is read twice
	memory     []byte // its content, where it does not lie in a directory
	stat       unix.Stat_t
	number     uint32
	links      uint32
	size       int64
	layout     dataLayout
	attributes []byte  // as they stand behind the inode
	entries    []named // of a directory
	target     string  // of a symlink
	parent     *node

	holes     []bool // by chunk
	chunkBits int

	nid   uint64
	start uint32 // first block of the content
}

// named is a name in a directory.
type named struct {
	name string
	node *node
}

// blocks is how many the content takes beside what lies with the inode.
func (n *node) blocks() uint32 {
	switch n.layout {
	case inline:
		return uint32(n.size / BlockSize)
	case chunks:
		var total uint32
		for i, hole := range n.holes {
			if !hole {
				total += uint32((min(n.size-int64(i)<<n.chunkBits, 1<<n.chunkBits) + BlockSize - 1) / BlockSize)
			}
		}
		return total
	case plain:
	}
	return uint32((n.size + BlockSize - 1) / BlockSize)
}

// beside is how many bytes follow the inode and its attributes.
func (n *node) beside() int {
	switch n.layout {
	case inline:
		return int(n.size % BlockSize)
	case chunks:
		return 4 * len(n.holes)
	case plain:
	}
	return 0
}

// scanner collects the nodes of a directory, each before what lies below it.
type scanner struct {
	nodes  []*node
	linked map[uint64]*node
}

func (s *scanner) scan(ctx context.Context, path string, parent *node) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if n := s.linked[st.Ino]; n != nil && !isDir && st.Nlink > 1 {
		n.links++
		return n, nil
	}
	n := &node{path: path, stat: st, number: uint32(len(s.nodes) + 1), links: 1, parent: parent}
	s.nodes = append(s.nodes, n)
	if !isDir && st.Nlink > 1 {
		s.linked[st.Ino] = n
	}
	err := n.readAttributes()
	if err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			n.size = st.Size
			err = n.findHoles()
		case unix.S_IFLNK:
			n.target, err = os.Readlink(path)
			n.size = int64(len(n.target))
		case unix.S_IFDIR:
			err = s.scanDir(ctx, n)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func (s *scanner) scanDir(ctx context.Context, n *node) error {
	names, err := os.ReadDir(n.path) // sorted by bytes, as the format wants it
	if err != nil {
		return err
	}
	n.links = 2
	if n.parent == nil {
		n.parent = n
	}
	n.entries = []named{{".", n}, {"..", n.parent}}
	for _, d := range names {
		child, err := s.scan(ctx, filepath.Join(n.path, d.Name()), n)
		if err != nil {
			return err
		}
		if child.stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			n.links++
		}
		n.entries = append(n.entries, named{d.Name(), child})
	}
	slices.SortFunc(n.entries, func(a, b named) int { return strings.Compare(a.name, b.name) })
	n.size = directorySize(n.entries)
	return nil
}

// readAttributes reads what the image can hold and overlayfs or a container can
// need; an attribute that the format cannot name is an error.
func (n *node) readAttributes() error {
	list := make([]byte, 64<<10)
	size, err := unix.Llistxattr(n.path, list)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00")
	slices.Sort(names)
	b := make([]byte, attributeHeader)
	for _, name := range names {
		value := make([]byte, 64<<10)
		size, err := unix.Lgetxattr(n.path, name, value)
		if err != nil {
			return err
		}
		var ok bool
		if b, ok = appendAttribute(b, name, value[:size]); !ok {
			return fmt.Errorf("attribute %q has no form in the image", name)
		}
	}
	if len(b) > attributeHeader+4*65534 {
		return errors.New("the attributes do not fit")
	}
	n.attributes = b
	return nil
}

// findHoles makes a file a table of chunks if it has holes at all.
func (n *node) findHoles() error {
	if n.stat.Blocks*512 >= n.size || n.size < 1<<chunkBits {
		return nil
	}
	f, err := os.Open(n.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	n.chunkBits = chunkBits
	for n.size>>n.chunkBits > 1<<16 { // a table stays below 256 KiB
		n.chunkBits++
	}
	holes := make([]bool, (n.size+1<<n.chunkBits-1)>>n.chunkBits)
	for i := range holes {
		holes[i] = true
	}
	some := false
	for off := int64(0); ; {
		from, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if off, err = f.Seek(from, unix.SEEK_HOLE); err != nil {
			return err
		}
		for i := from >> n.chunkBits; i<<n.chunkBits < off; i++ {
			holes[i] = false
		}
	}
	for _, h := range holes {
		some = some || h
	}
	if some {
		n.layout, n.holes = chunks, holes
	}
	return nil
}

// content calls f with the content's parts that take blocks, in order.
func (n *node) content(f func(io.Reader, int64) error) error {
	file, err := n.open()
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if n.layout != chunks {
		size := n.size
		if n.layout == inline {
			size -= size % BlockSize
		}
		return f(file, size)
	}
	for i, hole := range n.holes {
		off := int64(i) << n.chunkBits
		size := min(n.size-off, 1<<n.chunkBits)
		if !hole {
			if err := f(io.NewSectionReader(file, off, size), size); err != nil {
				return err
			}
		}
	}
	return nil
}

type content interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// open returns the content of a file for reading.
func (n *node) open() (content, error) {
	if n.memory != nil {
		return inMemory{bytes.NewReader(n.memory)}, nil
	}
	return os.OpenFile(n.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

type inMemory struct{ *bytes.Reader }

// Close does nothing.
func (inMemory) Close() error { return nil }
