// Package recipe reads what a guest image is to be made of: a short TOML file
// that a person writes. It is strict: what is not known is an error with its
// line, and all mistakes are told at once.
package recipe

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/initramfs"
)

// MaxSize is the largest recipe that is read, in bytes.
const MaxSize = 1 << 20

// Recipe says what goes into an image.
type Recipe struct {
	// Name begins the names of what is made, for example of the document of
	// reference values.
	Name    string `toml:"name"`
	Kernel  Kernel `toml:"kernel"`
	Agent   Agent  `toml:"agent"`
	Program []Part `toml:"program"`
	Data    []Part `toml:"data"`
	UKI     *Stub  `toml:"uki"`

	Firmware []Firmware `toml:"firmware"`
	Machine  Machine    `toml:"machine"`
	// Archive lists where packages come from; without, it is the archives that apt
	// on the machine is configured with.
	Archive []Archive `toml:"archive"`
}

// Kernel is the kernel, its modules and its command line.
type Kernel struct {
	// Package lists names of packages of which the first that there is counts. One
	// that only stands for the newest kernel is followed to it.
	Package []string `toml:"package"`
	// File is a bzImage that is there already, in place of a package, and Directory
	// what 'make modules_install' wrote of it (lib/modules/RELEASE). Paths that are
	// not absolute begin where the recipe is.
	File      string `toml:"file"`
	Directory string `toml:"directory"`
	// Modules are loaded before the agent serves, Later while it does: nothing runs
	// in the guest before all are. "-name" may be absent, or fail to load.
	Modules []string `toml:"modules"`
	Later   []string `toml:"later"`
	Cmdline string   `toml:"cmdline"`
	// Initramfs is how it is compressed, which the kernel must know: lz4, as
	// without, or zstd, smaller and slower to unpack.
	Initramfs initramfs.Compression `toml:"initramfs"`
}

// Compression is that of the initramfs.
func (k Kernel) Compression() initramfs.Compression { return cmp.Or(k.Initramfs, initramfs.LZ4) }

// Agent is where PID 1 goes. The file itself is given when the image is built.
type Agent struct {
	Path string `toml:"path"`
}

// Part is files of a package.
type Part struct {
	Package string `toml:"package"`
	// Files are absolute paths. Those of data may be patterns (path.Match), those
	// of programs may not: each program is named.
	Files []string `toml:"files"`
	// Join makes one file of all, in the order of their names.
	Join string `toml:"join"`
}

// Stub is the part of a unified kernel image that a firmware starts.
type Stub struct {
	Package string `toml:"package"`
	File    string `toml:"file"`
}

// Firmware is one that guests of this image are started by.
type Firmware struct {
	Name    string `toml:"name"`
	Package string `toml:"package"`
	File    string `toml:"file"`
	Edition string `toml:"edition"` // of edk2: see 'measure predict'
	// Platforms are those that measurements are predicted for: snp, tdx, tpm.
	Platforms []string `toml:"platforms"`
}

// Machine is the sizes of guests that measurements are predicted for.
type Machine struct {
	VCPUs  []int    `toml:"vcpus"`
	Memory []string `toml:"memory"`
	CPUs   []string `toml:"cpus"`
}

// Parse reads a recipe.
func Parse(raw []byte) (*Recipe, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("the recipe has %d bytes, at most %d are read", len(raw), MaxSize)
	}
	var r Recipe
	d := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, explain(err)
	}
	return &r, r.check()
}

// explain tells the lines of what is wrong.
func explain(err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var all []error
		for _, e := range strict.Errors {
			line, _ := e.Position()
			all = append(all, fmt.Errorf("line %d: %s means nothing in a recipe", line, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	if at, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := at.Position()
		return fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(at.Error(), "toml: "))
	}
	return err
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]{1,126}$`)
	moduleForm  = regexp.MustCompile(`^-?[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`)
)

func (r *Recipe) check() error {
	var all []error
	add := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(r.Name) {
		add("name = %q: want small letters, digits, dots and dashes", r.Name)
	}
	switch {
	case len(r.Kernel.Package) == 0 && r.Kernel.File == "":
		add("[kernel] package is missing: the packages to take the kernel from (or file, a kernel that is there already)")
	case len(r.Kernel.Package) > 0 && (r.Kernel.File != "" || r.Kernel.Directory != ""):
		add("[kernel] has package and file: the kernel is from a package, or is there already")
	case r.Kernel.File == "" && r.Kernel.Directory != "":
		add("[kernel] directory = %q: it is of a kernel that file names", r.Kernel.Directory)
	}
	for _, p := range r.Packages() {
		if !packageForm.MatchString(p) {
			add("%q cannot be the name of a package", p)
		}
	}
	for _, m := range slices.Concat(r.Kernel.Modules, r.Kernel.Later) {
		if !moduleForm.MatchString(m) {
			add("[kernel] %q cannot be the name of a module", m)
		}
	}
	if c := r.Kernel.Compression(); c != initramfs.LZ4 && c != initramfs.Zstd {
		add("[kernel] initramfs = %q: want lz4 or zstd", c)
	}
	if err := line(r.Kernel.Cmdline); err != nil {
		add("[kernel] cmdline: %w", err)
	}
	if !absolute(r.Agent.Path) {
		add("[agent] path = %q: want the absolute path of PID 1 in the guest", r.Agent.Path)
	}
	for _, a := range r.Archive {
		all = append(all, a.check()...)
	}
	for _, p := range r.Program {
		all = append(all, p.check("program", false)...)
	}
	for _, p := range r.Data {
		all = append(all, p.check("data", true)...)
	}
	if r.UKI != nil && !absolute(r.UKI.File) {
		add("[uki] file = %q: want an absolute path in the package", r.UKI.File)
	}
	for _, f := range r.Firmware {
		if !nameForm.MatchString(f.Name) || !absolute(f.File) || f.Package == "" {
			add("[[firmware]] name = %q: want a name, a package and the absolute path of a file in it", f.Name)
		}
		for _, p := range f.Platforms {
			if !slices.Contains([]string{"snp", "tdx", "tpm"}, p) {
				add("[[firmware]] %s: platform %q: want snp, tdx or tpm", f.Name, p)
			}
		}
	}
	return errors.Join(all...)
}

func (p Part) check(kind string, patterns bool) []error {
	var all []error
	if p.Package == "" || len(p.Files) == 0 {
		all = append(all, fmt.Errorf("[[%s]] wants a package and files", kind))
	}
	for _, f := range p.Files {
		_, err := path.Match(f, "")
		switch {
		case !absolute(f) || err != nil:
			all = append(all, fmt.Errorf("[[%s]] %s: %q is no clean absolute path", kind, p.Package, f))
		case !patterns && strings.ContainsAny(f, `*?[\`):
			all = append(all, fmt.Errorf("[[%s]] %s: %q is a pattern, and programs are named one by one", kind, p.Package, f))
		}
	}
	if p.Join != "" && (!patterns || !absolute(p.Join)) {
		all = append(all, fmt.Errorf("[[%s]] %s: join = %q: want an absolute path, and only for data", kind, p.Package, p.Join))
	}
	return all
}

func absolute(p string) bool { return path.IsAbs(p) && path.Clean(p) == p && p != "/" }

// line checks a part of a kernel's command line.
func line(s string) error {
	if strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
		return errors.New("want one line of printable ASCII without spaces around it")
	}
	return nil
}

// Append puts text behind the kernel's command line.
func (r *Recipe) Append(text string) error {
	if err := line(text); err != nil {
		return err
	}
	r.Kernel.Cmdline = strings.TrimSpace(r.Kernel.Cmdline + " " + text)
	return nil
}

// Packages lists the packages that the recipe names, each once: of a list of
// alternatives all.
func (r *Recipe) Packages() []string {
	out := slices.Clone(r.Kernel.Package)
	for _, p := range append(slices.Clone(r.Program), r.Data...) {
		out = append(out, p.Package)
	}
	if r.UKI != nil {
		out = append(out, r.UKI.Package)
	}
	for _, f := range r.Firmware {
		out = append(out, f.Package)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
