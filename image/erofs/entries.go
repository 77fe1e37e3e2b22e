package erofs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An Entry is a file of an image that is made from memory. It belongs to root
// and has no time.
type Entry struct {
	Path    string      // absolute and clean; "/" is the root
	Mode    fs.FileMode // permissions and the type: regular, directory or symlink
	Content []byte      // of a regular file
	Target  string      // of a symlink
}

// WriteEntries writes an image of these files to w and returns the number of its
// blocks. Every directory must be among them, the root too. Their order does not
// matter.
func WriteEntries(ctx context.Context, w io.Writer, entries []Entry) (int64, error) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	s := &scanner{}
	nodes := map[string]*node{}
	for _, e := range entries {
		n, err := newNode(e)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", e.Path, err)
		}
		if nodes[e.Path] != nil {
			return 0, fmt.Errorf("%s is there twice", e.Path)
		}
		n.number = uint32(len(s.nodes) + 1)
		s.nodes = append(s.nodes, n)
		nodes[e.Path] = n
		n.parent = nodes[path.Dir(e.Path)]
		if n.parent == nil || !n.parent.directory() {
			return 0, fmt.Errorf("%s lies in no directory of the image", e.Path)
		}
		if n.parent != n {
			n.parent.entries = append(n.parent.entries, named{path.Base(e.Path), n})
		}
		if n.directory() {
			n.links, n.entries = 2, []named{{".", n}, {"..", n.parent}}
			n.parent.links++
		}
	}
	root := nodes["/"]
	if root == nil {
		return 0, fmt.Errorf("the image has no root")
	}
	root.links-- // is in no directory but itself
	for _, n := range s.nodes {
		if n.directory() {
			slices.SortFunc(n.entries, func(a, b named) int { return strings.Compare(a.name, b.name) })
			n.size = directorySize(n.entries)
		}
	}
	return s.write(ctx, w, root)
}

func (n *node) directory() bool { return n.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

func newNode(e Entry) (*node, error) {
	if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || len(path.Base(e.Path)) > 255 {
		return nil, fmt.Errorf("no clean absolute path of names of at most 255 bytes")
	}
	n := &node{path: e.Path, links: 1, memory: []byte{}}
	n.stat.Mode = uint32(e.Mode.Perm())
	for _, bit := range []struct {
		mode fs.FileMode
		as   uint32
	}{{fs.ModeSticky, unix.S_ISVTX}, {fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}} {
		if e.Mode&bit.mode != 0 {
			n.stat.Mode |= bit.as
		}
	}
	switch e.Mode.Type() {
	case fs.ModeDir:
		n.stat.Mode |= unix.S_IFDIR
	case fs.ModeSymlink:
		n.stat.Mode |= unix.S_IFLNK
		n.target, n.size = e.Target, int64(len(e.Target))
	case 0:
		n.stat.Mode |= unix.S_IFREG
		n.size = int64(len(e.Content))
		if e.Content != nil {
			n.memory = e.Content
		}
	default:
		return nil, fmt.Errorf("files of type %v have no place in it", e.Mode.Type())
	}
	return n, nil
}
