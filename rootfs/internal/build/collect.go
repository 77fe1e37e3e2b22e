// Package build makes an image from a recipe, its lock and an agent: it takes
// files out of packages, refuses what should not be in a guest, and writes the
// form that was asked for. It needs no root, no network once the packages are
// in the cache, and no tool of the machine.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/deb"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/linkage"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// Packages is where the pinned packages come from.
type Packages interface {
	// Open returns a package whose content is the one that the lock pins.
	Open(ctx context.Context, p lock.Package) (*os.File, error)
}

// packaged is a file of a package, in memory.
type packaged struct {
	file    deb.File
	content []byte
	origin  string
}

// collection is files of packages by their canonical paths in the image.
type collection map[string]packaged

// left out of what is read: nothing in a guest reads it.
var leftOut = []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/lintian/"}

// collect reads the files of a package that are wanted.
func (c collection) collect(ctx context.Context, from Packages, p lock.Package, wanted func(string) bool) error {
	f, err := from.Open(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	origin := p.Name + " " + p.Version
	err = deb.Walk(ctx, f, func(f deb.File, content io.Reader) error {
		if slices.ContainsFunc(leftOut, func(dir string) bool { return strings.HasPrefix(f.Path, dir) }) || !wanted(f.Path) {
			return nil
		}
		raw, err := io.ReadAll(content)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		c[tree.Canonical(f.Path)] = packaged{f, raw, origin}
		return nil
	})
	if err != nil {
		return fmt.Errorf("package %s: %w", origin, err)
	}
	return nil
}

func everything(string) bool { return true }

const maxLinks = 16

// resolve follows links, and returns the paths on the way with the file at the
// end.
func (c collection) resolve(p string) ([]string, packaged, error) {
	p = tree.Canonical(p)
	var way []string
	for range maxLinks {
		f, ok := c[p]
		if !ok {
			return nil, packaged{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
		}
		way = append(way, p)
		switch {
		case f.file.Mode&fs.ModeSymlink != 0:
			next := f.file.Target
			if !path.IsAbs(next) {
				next = path.Join(path.Dir(p), next)
			}
			p = tree.Canonical(next)
		case f.file.Target != "": // a hard link
			p = tree.Canonical(f.file.Target)
		default:
			return way, f, nil
		}
	}
	return nil, packaged{}, fmt.Errorf("%s: more than %d links", p, maxLinks)
}

// lookup is a [linkage.Source].
func (c collection) lookup(p string) (linkage.Found, bool) {
	_, f, err := c.resolve(p)
	return linkage.Found{Path: p, Content: f.content}, err == nil
}

// put adds a file to the image, with the links that lead to it.
func (c collection) put(t *tree.Tree, p string, declared bool) error {
	way, end, err := c.resolve(p)
	if err != nil {
		return err
	}
	for _, name := range way {
		f := c[name]
		entry := tree.File{Origin: f.origin, Declared: declared, Mode: end.file.Mode, Content: end.content}
		if f.file.Mode&fs.ModeSymlink != 0 {
			entry.Mode, entry.Target, entry.Content = fs.ModeSymlink|0o777, f.file.Target, nil
		}
		if err := t.Add(name, entry); err != nil {
			return err
		}
	}
	return nil
}

// match lists the paths that a pattern matches, sorted; it must match some.
func (c collection) match(pattern string) ([]string, error) {
	var out []string
	for p := range c {
		ok, err := path.Match(tree.Canonical(pattern), p)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", pattern, errNone)
	}
	return out, nil
}

var errNone = errors.New("the package has no such file")
