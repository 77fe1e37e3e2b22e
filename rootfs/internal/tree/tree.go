// Package tree is the content of a guest image in memory: who may be in it, and
// in which order it is written. Owners are root and times are zero, whatever
// machine it is made on.
package tree

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits of an image.
const (
	maxFiles = 50_000
	maxBytes = 4 << 30
)

// A File is one of the image. Mode has the permissions and the type: regular,
// directory or symlink.
type File struct {
	Mode    fs.FileMode
	Content []byte // of a regular file
	Target  string // of a symlink
	// Origin says where it comes from, for example a package and its version.
	Origin string
	// Declared says that the recipe names this very file, or a declared one
	// needs it as a shared library: programs must be.
	Declared bool
}

// Tree is the files by their absolute paths. The zero value is not usable; see
// New.
type Tree struct {
	files map[string]File
	size  int64
}

// merged are the directories that are links into /usr, so that packages of
// both sides of Debian's merge end up in the same place.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// New returns a tree that has the directories of a system, and the links
// that stand for /bin, /sbin, /lib and /lib64.
func New() *Tree {
	t := &Tree{files: map[string]File{"/": {Mode: fs.ModeDir | 0o755, Origin: layout}}}
	for _, d := range []string{"/dev", "/etc", "/mnt", "/proc", "/run", "/sys", "/tmp", "/usr", "/var"} {
		t.files[d] = File{Mode: fs.ModeDir | 0o755, Origin: layout}
	}
	t.files["/tmp"] = File{Mode: fs.ModeDir | fs.ModeSticky | 0o777, Origin: layout}
	for _, m := range merged {
		t.files["/usr/"+m] = File{Mode: fs.ModeDir | 0o755, Origin: layout}
		t.files["/"+m] = File{Mode: fs.ModeSymlink | 0o777, Target: "usr/" + m, Origin: layout}
	}
	return t
}

const layout = "layout"

// Empty returns a tree with a root and nothing in it, to put what was read into.
func Empty() *Tree {
	return &Tree{files: map[string]File{"/": {Mode: fs.ModeDir | 0o755, Origin: layout}}}
}

// Put puts a file at exactly this path, as it was read: its directory must be
// there. Only the root may be there already.
func (t *Tree) Put(p string, f File) error {
	if _, ok := t.files[p]; ok && p != "/" {
		return fmt.Errorf("%s is there twice", p)
	}
	if above := t.files[path.Dir(p)]; !above.Mode.IsDir() {
		return fmt.Errorf("%s lies in no directory", p)
	}
	f.Declared = true // whoever wrote it knew
	t.files[p] = f
	return t.grown(f)
}

func (t *Tree) grown(f File) error {
	t.size += int64(len(f.Content))
	if len(t.files) > maxFiles || t.size > maxBytes {
		return fmt.Errorf("the image would have more than %d files or %d GiB", maxFiles, maxBytes>>30)
	}
	return nil
}

// Canonical is the path in the image for one of a package.
func Canonical(p string) string {
	p = path.Clean("/" + p)
	top, rest, _ := strings.Cut(p[1:], "/")
	if rest != "" && slices.Contains(merged, top) {
		return path.Join("/usr", top, rest)
	}
	return p
}

// Add puts a file in its canonical place, with the directories above it. A
// path can be given twice only with the same content.
func (t *Tree) Add(p string, f File) error {
	p = Canonical(p)
	if old, ok := t.files[p]; ok {
		if old.Mode == f.Mode && old.Target == f.Target && bytes.Equal(old.Content, f.Content) {
			old.Declared = old.Declared || f.Declared
			t.files[p] = old
			return nil
		}
		return fmt.Errorf("%s would be there twice, from %s and from %s", p, old.Origin, f.Origin)
	}
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		above, ok := t.files[dir]
		switch {
		case !ok:
			t.files[dir] = File{Mode: fs.ModeDir | 0o755, Origin: layout}
		case !above.Mode.IsDir():
			return fmt.Errorf("%s lies below %s, which is no directory", p, dir)
		}
	}
	t.files[p] = f
	return t.grown(f)
}

// Get returns the file of that name.
func (t *Tree) Get(p string) (File, bool) {
	if f, ok := t.files[p]; ok {
		return f, true
	}
	f, ok := t.files[Canonical(p)]
	return f, ok
}

// Paths lists all, sorted by their bytes: a directory before what is in it.
func (t *Tree) Paths() []string { return slices.Sorted(maps.Keys(t.files)) }

// Size is the number of bytes of all content.
func (t *Tree) Size() int64 { return t.size }

// unwanted are names of programs that a guest must not have: whoever gets into
// it should find nothing to work with.
var unwanted = func() map[string]string {
	out := map[string]string{}
	for why, names := range map[string][]string{
		"a shell":           {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox", "toybox"},
		"a package manager": {"dpkg", "apt", "apt-get", "rpm", "dnf", "yum", "apk", "pip", "pip3"},
		"an interpreter":    {"perl", "python", "python3", "ruby", "lua", "node", "awk", "mawk", "gawk"},
	} {
		for _, n := range names {
			out[n] = why
		}
	}
	return out
}()

// ErrUnwanted says that an image has what no guest should have.
var ErrUnwanted = errors.New("not for a guest image")

// Check refuses what no guest should have: shells, package managers and
// interpreters by their names, set-user-ID and set-group-ID files, and programs
// and libraries that nobody declared. All are reported.
func (t *Tree) Check() error {
	var all []error
	for _, p := range t.Paths() {
		f := t.files[p]
		if why, ok := unwanted[path.Base(p)]; ok && !f.Mode.IsDir() {
			all = append(all, fmt.Errorf("%w: %s, of %s, is %s", ErrUnwanted, p, f.Origin, why))
		}
		if f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			all = append(all, fmt.Errorf("%w: %s, of %s, runs with the rights of its owner", ErrUnwanted, p, f.Origin))
		}
		if !f.Declared && bytes.HasPrefix(f.Content, []byte(elf.ELFMAG)) {
			all = append(all, fmt.Errorf("%w: %s, of %s, is a program or library that the recipe does not name", ErrUnwanted, p, f.Origin))
		}
		if !f.Declared && bytes.HasPrefix(f.Content, []byte("#!")) {
			all = append(all, fmt.Errorf("%w: %s, of %s, is a script that the recipe does not name", ErrUnwanted, p, f.Origin))
		}
	}
	return errors.Join(all...)
}
