// Package kmod computes which kernel modules a guest needs for those that its
// recipe names, and in which order they are loaded. It works on the modules of a
// package, which carry their own dependencies (.modinfo, as modpost wrote it);
// the tables of depmod(8) are made when a package is installed, and none is.
package kmod

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/unxz"
)

// MaxModule is the largest module that is read, in bytes after decompression.
const MaxModule = 64 << 20

// ErrModule says that bytes are no kernel module.
var ErrModule = errors.New("malformed kernel module")

// Module is one that the guest loads.
type Module struct {
	Name    string // with underscores, as the kernel calls it
	Path    string // below the modules' directory, without what says how it is compressed
	Content []byte // not compressed, with its signature
	// Optional says that the guest goes on if it does not load.
	Optional bool
	// Later says that the agent serves before it is loaded.
	Later bool
}

// A Set is the modules that a kernel has.
type Set struct {
	files   map[string]string // by name: path below lib/modules/VERSION
	builtin map[string]bool
	read    func(path string) ([]byte, error)
}

// NewSet returns the set of the modules with these paths, below lib/modules/
// VERSION, and of those that modules.builtin lists, which are part of the kernel.
func NewSet(paths []string, builtin []byte, read func(path string) ([]byte, error)) *Set {
	s := &Set{files: map[string]string{}, builtin: map[string]bool{}, read: read}
	for _, p := range paths {
		if name, ok := nameOf(p); ok {
			s.files[name] = p
		}
	}
	for line := range strings.Lines(string(builtin)) {
		if name, ok := nameOf(strings.TrimSpace(line)); ok {
			s.builtin[name] = true
		}
	}
	return s
}

// suffixes are how modules are compressed (kmod, MODULE_COMPRESS_*).
var suffixes = []string{".ko", ".ko.xz", ".ko.zst"}

// nameOf is the kernel's name for the module in a file.
func nameOf(p string) (string, bool) {
	base := path.Base(p)
	for _, suffix := range suffixes {
		if name, ok := strings.CutSuffix(base, suffix); ok && name != "" {
			return strings.ReplaceAll(name, "-", "_"), true
		}
	}
	return "", false
}

// Closure returns the named modules and those that they depend on, each behind
// what it needs: the first ones, and then what only the later ones need. A name
// that begins with "-" may be absent and may fail to load, and so may what only
// such modules need. What is built into the kernel is left out.
func (s *Set) Closure(first, later []string) ([]Module, error) {
	c := &closure{set: s, at: map[string]int{}, open: map[string]bool{}}
	err := c.addAll(first)
	c.later = true
	err = errors.Join(err, c.addAll(later))
	return c.out, err
}

type closure struct {
	set   *Set
	out   []Module
	at    map[string]int  // where in out
	open  map[string]bool // being added
	later bool            // what is added now
}

func (c *closure) addAll(names []string) error {
	var all []error
	for _, wanted := range names {
		name, optional := strings.CutPrefix(wanted, "-")
		name = strings.ReplaceAll(name, "-", "_")
		if _, there := c.set.files[name]; !there && optional {
			continue
		}
		if err := c.add(name, optional); err != nil {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func (c *closure) add(name string, optional bool) error {
	if i, ok := c.at[name]; ok {
		if !optional && c.out[i].Optional {
			return c.demand(i)
		}
		return nil
	}
	if c.set.builtin[name] {
		return nil
	}
	file, ok := c.set.files[name]
	if !ok {
		return fmt.Errorf("the kernel has no module %s", name)
	}
	if c.open[name] {
		return fmt.Errorf("module %s depends on itself", name)
	}
	c.open[name] = true
	raw, err := c.set.read(file)
	if err != nil {
		return err
	}
	content, err := decompress(file, raw)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	info, err := parseInfo(content)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, dep := range info.before() {
		if dep.soft {
			if dep.name = c.set.provider(dep.name); dep.name == "" {
				continue
			}
		}
		if err := c.add(dep.name, optional || dep.soft); err != nil {
			return fmt.Errorf("for module %s: %w", name, err)
		}
	}
	base := strings.TrimSuffix(strings.TrimSuffix(file, ".xz"), ".zst")
	c.at[name] = len(c.out)
	c.out = append(c.out, Module{Name: name, Path: base, Content: content, Optional: optional, Later: c.later})
	return nil
}

// demand makes a module that was optional so far, and all that it needs,
// required.
func (c *closure) demand(i int) error {
	c.out[i].Optional = false
	info, err := parseInfo(c.out[i].Content)
	if err != nil {
		return err
	}
	for _, dep := range info.before() {
		if j, ok := c.at[dep.name]; ok && !dep.soft && c.out[j].Optional {
			if err := c.demand(j); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Set) has(name string) bool {
	_, ok := s.files[name]
	return ok || s.builtin[name]
}

// provider is the module that a soft dependency means; "" if there is none. What
// needs an algorithm names that (crc32c, or crypto-crc32c), which modules provide by
// an alias. All aliases stand in all modules and in depmod's table alone, so only the
// kernel's own name for its generic implementation is tried.
func (s *Set) provider(name string) string {
	for _, candidate := range []string{name, strings.TrimPrefix(name, "crypto_") + "_generic"} {
		if s.has(candidate) {
			return candidate
		}
	}
	return ""
}

// info is what .modinfo says of dependencies.
type info struct{ depends, soft []string }

type dependency struct {
	name string
	soft bool
}

// before lists what is loaded first.
func (i info) before() []dependency {
	var out []dependency
	for _, name := range i.soft {
		out = append(out, dependency{name, true})
	}
	for _, name := range i.depends {
		out = append(out, dependency{name, false})
	}
	return out
}

// parseInfo reads the section .modinfo: texts KEY=VALUE, each ended by a zero.
func parseInfo(content []byte) (out info, err error) {
	defer func() {
		// debug/elf is not hardened against all inputs (its own words).
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrModule, r)
		}
	}()
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return info{}, fmt.Errorf("%w: %w", ErrModule, err)
	}
	section := f.Section(".modinfo")
	if f.Type != elf.ET_REL || section == nil || section.Size > 1<<20 {
		return info{}, fmt.Errorf("%w: it has no section .modinfo", ErrModule)
	}
	raw, err := section.Data()
	if err != nil {
		return info{}, fmt.Errorf("%w: %w", ErrModule, err)
	}
	for text := range bytes.SplitSeq(raw, []byte{0}) {
		key, value, _ := strings.Cut(string(text), "=")
		switch key {
		case "depends":
			for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				out.depends = append(out.depends, strings.ReplaceAll(name, "-", "_"))
			}
		case "softdep":
			out.soft = append(out.soft, softBefore(value)...)
		}
	}
	slices.Sort(out.depends)
	return out, nil
}

// softBefore reads what a soft dependency wants loaded first: "pre: a b post: c".
func softBefore(value string) []string {
	var out []string
	before := false
	for _, word := range strings.Fields(value) {
		switch word {
		case "pre:":
			before = true
		case "post:":
			before = false
		default:
			if before {
				out = append(out, strings.ReplaceAll(word, "-", "_"))
			}
		}
	}
	return out
}

func decompress(name string, raw []byte) ([]byte, error) {
	var r io.Reader = bytes.NewReader(raw)
	switch path.Ext(name) {
	case ".xz":
		z, err := unxz.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrModule, err)
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxModule))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrModule, err)
		}
		defer z.Close()
		r = z
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	if len(out) > MaxModule {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrModule, MaxModule)
	}
	return out, nil
}
