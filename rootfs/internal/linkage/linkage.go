// Package linkage finds the shared libraries that programs need, as the dynamic
// loader would (ld.so(8)), without running any of them.
package linkage

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// directories are searched by the loader of Debian without a cache; multiarch
// ones come first. Paths are those of the image, behind the merge of /usr.
var directories = []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"}

// Found is a file of a package, behind its links.
type Found struct {
	Path    string // by which the loader asks for it
	Content []byte
}

// Source looks a path of the image up among all files that the packages have.
// It follows links, and reports whether there is one.
type Source func(path string) (Found, bool)

// Closure returns the paths of all libraries, and of the loader, that the
// programs need, sorted. A path is one by which a library is asked for, which may
// be a link in its package.
func Closure(lookup Source, programs map[string][]byte) ([]string, error) {
	seen := map[string]bool{}
	type job struct {
		name    string
		content []byte
	}
	var queue []job
	for name, content := range programs {
		queue = append(queue, job{name, content})
	}
	slices.SortFunc(queue, func(a, b job) int { return strings.Compare(a.name, b.name) })
	var missing []error
	for len(queue) > 0 {
		j := queue[0]
		queue = queue[1:]
		needs, err := needed(j.content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", j.name, err)
		}
		for _, n := range needs {
			p, found, ok := find(lookup, n)
			if !ok {
				missing = append(missing, fmt.Errorf("%s needs %s, which no locked package has", j.name, n))
				continue
			}
			if !seen[p] {
				seen[p] = true
				queue = append(queue, job{p, found.Content})
			}
		}
	}
	var out []string
	for p := range seen {
		out = append(out, p)
	}
	slices.Sort(out)
	return out, errors.Join(missing...)
}

// find looks a library up in the loader's directories; a path is taken as it is.
func find(lookup Source, name string) (string, Found, bool) {
	if strings.Contains(name, "/") {
		f, ok := lookup(name)
		return name, f, ok
	}
	for _, d := range directories {
		p := path.Join(d, name)
		if f, ok := lookup(p); ok {
			return p, f, true
		}
	}
	return "", Found{}, false
}

// needed returns the interpreter and the libraries that an ELF file asks for; a
// static one asks for none. An own search path is refused: nothing here honours
// it.
func needed(content []byte) (out []string, err error) {
	defer func() {
		// debug/elf is not hardened against all inputs (its own words), and the
		// files come from packages.
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("malformed ELF file: %v", r)
		}
	}()
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return nil, fmt.Errorf("it is for %v, not for x86-64", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz > 4096 {
			return nil, errors.New("its interpreter's name has more than 4096 bytes")
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return nil, err
		}
		out = append(out, string(bytes.TrimRight(name, "\x00")))
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		if paths, err := f.DynString(tag); err == nil && len(paths) > 0 {
			return nil, fmt.Errorf("it has a search path of its own, %q", paths)
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	return append(out, libraries...), nil
}
