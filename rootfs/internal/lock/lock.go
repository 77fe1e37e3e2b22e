// Package lock is the file that pins what an image is built from: every package
// with its version, its SHA-256 and where it was found. It is made once, kept
// beside the recipe, and a build takes nothing that is not in it.
package lock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/archive"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
)

// Limits of a lock file.
const (
	MaxSize     = 4 << 20
	maxPackages = 2000
	maxDeb      = 2 << 30 // bytes of a package
)

// schema is the one that is read.
const schema = 1

// Lock is what a recipe's packages were resolved to.
type Lock struct {
	Schema int `toml:"schema"`
	// Kernel is the package with the kernel, "" where that is from none.
	Kernel string `toml:"kernel"`
	// Own is a kernel from no package.
	Own     *ownkernel.Pin `toml:"own_kernel,omitempty"`
	Package []Package      `toml:"package"`
}

// Package is one pinned version of a package.
type Package struct {
	Name         string `toml:"name"`
	Version      string `toml:"version"`
	Architecture string `toml:"architecture"`
	Source       string `toml:"source"`
	Homepage     string `toml:"homepage,omitempty"`
	Size         int64  `toml:"size"`
	SHA256       string `toml:"sha256"`
	URL          string `toml:"url"`
}

// Make resolves what a recipe asks for. The packages of programs come with all
// that they depend on, for their libraries are there; others come alone. Own is
// the kernel where the recipe names a file, else nil.
func Make(r *recipe.Recipe, x *archive.Index, own *ownkernel.Pin) (*Lock, error) {
	l := &Lock{Schema: schema, Own: own}
	var programs []string
	for _, p := range r.Program {
		programs = append(programs, p.Package)
	}
	chosen, err := x.Closure(programs)
	if err != nil {
		return nil, err
	}
	if r.Kernel.File == "" {
		kernel, err := x.Kernel(r.Kernel.Package)
		if err != nil {
			return nil, err
		}
		chosen, l.Kernel = append(chosen, kernel), kernel.Name
	}
	alone := []string{}
	for _, d := range r.Data {
		alone = append(alone, d.Package)
	}
	if r.UKI != nil {
		alone = append(alone, r.UKI.Package)
	}
	for _, f := range r.Firmware {
		alone = append(alone, f.Package)
	}
	for _, name := range alone {
		p := x.Newest(name)
		if p == nil {
			return nil, fmt.Errorf("the configured archives have no package %s", name)
		}
		if !slices.Contains(chosen, p) {
			chosen = append(chosen, p)
		}
	}
	for _, p := range chosen {
		homepage := p.Homepage
		l.Package = append(l.Package, Package{p.Name, p.Version, p.Architecture, p.Source, homepage, p.Size, p.SHA256, p.URL})
	}
	slices.SortFunc(l.Package, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return l, l.check()
}

// Marshal writes the lock as a file. The same lock is the same bytes.
func (l *Lock) Marshal() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# What the image is built from. Made by 'rootfs lock'; make it again instead of changing it.\n")
	if err := toml.NewEncoder(&b).Encode(l); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads a lock file.
func Parse(raw []byte) (*Lock, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("the lock has %d bytes, at most %d are read", len(raw), MaxSize)
	}
	var l Lock
	if err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(&l); err != nil {
		return nil, fmt.Errorf("the lock is not as 'rootfs lock' writes it: %w", err)
	}
	if l.Schema != schema {
		return nil, fmt.Errorf("the lock has schema %d, and this program reads %d: lock again", l.Schema, schema)
	}
	return &l, l.check()
}

func (l *Lock) check() error {
	var all []error
	if len(l.Package) == 0 || len(l.Package) > maxPackages {
		all = append(all, fmt.Errorf("the lock has %d packages, must be 1 to %d", len(l.Package), maxPackages))
	}
	seen := map[string]bool{}
	for _, p := range l.Package {
		u, errURL := url.Parse(p.URL)
		switch {
		case p.Name == "" || p.Version == "":
			all = append(all, errors.New("the lock has a package without a name or a version"))
		case seen[p.Name]:
			all = append(all, fmt.Errorf("the lock has package %s twice", p.Name))
		case !isDigest(p.SHA256):
			all = append(all, fmt.Errorf("package %s: %.80q is no SHA-256 in small letters", p.Name, p.SHA256))
		case p.Size <= 0 || p.Size > maxDeb:
			all = append(all, fmt.Errorf("package %s: a size of %d bytes", p.Name, p.Size))
		case errURL != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file":
			all = append(all, fmt.Errorf("package %s: %.100q is no address by http, https or file", p.Name, p.URL))
		case u.User != nil:
			all = append(all, fmt.Errorf("package %s: the address has a password in it", p.Name))
		}
		seen[p.Name] = true
	}
	switch {
	case (l.Own == nil) == (l.Kernel == ""):
		all = append(all, errors.New("the lock must have one kernel, of a package or its own"))
	case l.Own == nil && !seen[l.Kernel]:
		all = append(all, fmt.Errorf("the lock has no package %q, which should have the kernel", l.Kernel))
	case l.Own != nil && (!isDigest(l.Own.SHA256) || l.Own.Modules != "" && !isDigest(l.Own.Modules)):
		all = append(all, errors.New("the kernel of the lock has no SHA-256 in small letters"))
	}
	return errors.Join(all...)
}

func isDigest(s string) bool {
	digest, err := hex.DecodeString(s)
	return err == nil && len(digest) == 32 && strings.ToLower(s) == s
}

// Find returns the package of that name.
func (l *Lock) Find(name string) (Package, bool) {
	i := slices.IndexFunc(l.Package, func(p Package) bool { return p.Name == name })
	if i < 0 {
		return Package{}, false
	}
	return l.Package[i], true
}

// Serves says which packages of a recipe the lock does not have.
func (l *Lock) Serves(r *recipe.Recipe) error {
	var all []error
	if (r.Kernel.File == "") != (l.Own == nil) {
		all = append(all, errors.New("the kernel of the recipe is from a package, and that of the lock is not, or the other way round"))
	}
	for _, name := range r.Packages() {
		if slices.Contains(r.Kernel.Package, name) {
			continue
		}
		if _, ok := l.Find(name); !ok {
			all = append(all, fmt.Errorf("the recipe names package %s, which the lock does not have", name))
		}
	}
	if len(all) > 0 {
		all = append(all, errors.New("lock again: rootfs lock"))
	}
	return errors.Join(all...)
}
