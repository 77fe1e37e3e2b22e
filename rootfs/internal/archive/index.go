package archive

import (
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Package is one version of a package in an archive.
type Package struct {
	Name, Version, Architecture string
	Source, Homepage            string
	URL                         string
	Size                        int64
	SHA256                      string // hex
	Depends                     []Relation
	Provides                    []string
}

// A Relation is one that must be met by one of its alternatives (Debian Policy
// 7.1).
type Relation []Alternative

// Alternative is a package, and a bound on its version where Operator is not "".
type Alternative struct {
	Name, Operator, Version string
}

// Index is the packages of several archives, by name, the newest first.
type Index struct {
	packages map[string][]*Package
	provides map[string][]*Package
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{packages: map[string][]*Package{}, provides: map[string][]*Package{}}
}

// Read adds the packages of a Packages file. The URL of a package is its path in
// the file below base.
func (x *Index) Read(r io.Reader, base string) error {
	var all []*Package
	err := paragraphs(r, func(fields map[string]string) error {
		p, err := newPackage(fields, base)
		if err != nil {
			return fmt.Errorf("package %.80q: %w", fields["Package"], err)
		}
		all = append(all, p)
		return nil
	})
	if err != nil {
		return err // nothing of a list is believed whose end did not come
	}
	for _, p := range all {
		x.packages[p.Name] = append(x.packages[p.Name], p)
		for _, name := range p.Provides {
			x.provides[name] = append(x.provides[name], p)
		}
	}
	for _, p := range all {
		newestFirst(x.packages[p.Name])
	}
	return nil
}

func newestFirst(list []*Package) {
	slices.SortStableFunc(list, func(a, b *Package) int { return Compare(b.Version, a.Version) })
}

func newPackage(fields map[string]string, base string) (*Package, error) {
	p := &Package{
		Name: fields["Package"], Version: fields["Version"], Architecture: fields["Architecture"],
		Homepage: fields["Homepage"], SHA256: fields["SHA256"],
	}
	p.Source, _, _ = strings.Cut(fields["Source"], " ")
	if p.Source == "" {
		p.Source = p.Name
	}
	size, err := strconv.ParseInt(fields["Size"], 10, 64)
	digest, errHex := hex.DecodeString(p.SHA256)
	file := fields["Filename"]
	switch {
	case p.Name == "" || p.Version == "" || err != nil || size <= 0 || errHex != nil || len(digest) != 32:
		return nil, fmt.Errorf("%w: name, version, size and SHA256 are wanted", ErrIndex)
	case file == "" || path.Clean(file) != file && "./"+path.Clean(file) != file || strings.HasPrefix(path.Clean(file), ".."):
		return nil, fmt.Errorf("%w: file name %.80q", ErrIndex, file)
	}
	p.Size, p.URL = size, strings.TrimSuffix(base, "/")+"/"+strings.TrimPrefix(file, "./")
	p.Depends = append(relations(fields["Pre-Depends"]), relations(fields["Depends"])...)
	for _, r := range relations(fields["Provides"]) {
		p.Provides = append(p.Provides, r[0].Name)
	}
	return p, nil
}

// relations reads "a (>= 1), b | c". What is not understood is an alternative
// that nothing meets.
func relations(text string) []Relation {
	var out []Relation
	for part := range strings.SplitSeq(text, ",") {
		var r Relation
		for choice := range strings.SplitSeq(part, "|") {
			name, bound, _ := strings.Cut(strings.TrimSpace(choice), " ")
			name, _, _ = strings.Cut(name, ":")
			a := Alternative{Name: name}
			if words := strings.Fields(strings.Trim(strings.TrimSpace(bound), "()")); len(words) == 2 {
				a.Operator, a.Version = words[0], words[1]
			}
			if name != "" {
				r = append(r, a)
			}
		}
		if len(r) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// allows reports whether a version is within the bound.
func (a Alternative) allows(version string) bool {
	c := Compare(version, a.Version)
	switch a.Operator {
	case "":
		return true
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	}
	return false
}

// find returns the newest package that meets the alternative, one of that name
// before one that provides it.
func (x *Index) find(a Alternative) *Package {
	for _, p := range x.packages[a.Name] {
		if a.allows(p.Version) {
			return p
		}
	}
	if list := x.provides[a.Name]; len(list) > 0 && a.Operator == "" {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
		return list[0]
	}
	return nil
}

// Newest returns the newest package of that name, or nil.
func (x *Index) Newest(name string) *Package {
	if list := x.packages[name]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// Kernel returns the package with a kernel: the first of these names that there
// is, or, where it only stands for the newest kernel, the one that it stands for.
func (x *Index) Kernel(names []string) (*Package, error) {
	for _, name := range names {
		p := x.Newest(name)
		for range 4 { // linux-image-cloud-amd64 is two steps away in some releases
			next := p.image(x)
			if next == nil {
				break
			}
			p = next
		}
		if p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the configured archives have none of the kernels %s", strings.Join(names, ", "))
}

// image is the kernel that a package depends on, or nil.
func (p *Package) image(x *Index) *Package {
	if p == nil {
		return nil
	}
	for _, r := range p.Depends {
		if strings.HasPrefix(r[0].Name, "linux-image-") {
			return x.find(r[0])
		}
	}
	return nil
}

// Closure returns the named packages and all that they depend on, sorted by
// name: the newest that meet every bound on the way.
func (x *Index) Closure(names []string) ([]*Package, error) {
	chosen := map[string]*Package{}
	queue := []*Package{}
	for _, n := range names {
		p := x.Newest(n)
		if p == nil {
			return nil, fmt.Errorf("the configured archives have no package %s", n)
		}
		queue = append(queue, p)
	}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if old := chosen[p.Name]; old != nil {
			continue
		}
		chosen[p.Name] = p
		for _, r := range p.Depends {
			next, err := x.choose(r, chosen)
			if err != nil {
				return nil, fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
			}
			queue = append(queue, next)
		}
	}
	var out []*Package
	for _, p := range chosen {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// choose takes what is chosen already, if it meets the relation, or else the
// first alternative that there is.
func (x *Index) choose(r Relation, chosen map[string]*Package) (*Package, error) {
	for _, a := range r {
		if p := chosen[a.Name]; p != nil && a.allows(p.Version) {
			return p, nil
		}
	}
	for _, a := range r {
		if p := x.find(a); p != nil {
			if old := chosen[p.Name]; old != nil && old != p {
				return nil, fmt.Errorf("it wants %s (%s %s), and %s is chosen", a.Name, a.Operator, a.Version, old.Version)
			}
			return p, nil
		}
	}
	var names []string
	for _, a := range r {
		names = append(names, strings.TrimSpace(a.Name+" "+a.Operator+" "+a.Version))
	}
	return nil, fmt.Errorf("the configured archives have nothing for %s", strings.Join(names, " or "))
}
