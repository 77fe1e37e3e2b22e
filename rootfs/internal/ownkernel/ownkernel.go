// Package ownkernel reads a kernel that comes from no package: a bzImage that
// somebody built, and the directory that its 'make modules_install' wrote. Both
// are pinned by their digests, as packages are.
package ownkernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/given"
)

// Limits of what is read.
const (
	maxImage   = 512 << 20 // bytes
	maxModule  = 256 << 20 // bytes of a file
	maxModules = 20_000    // files
)

var (
	// ErrImage says that a file is no kernel that QEMU or a firmware starts.
	ErrImage = errors.New("no bzImage")
	// ErrChanged says that a file is not the one that was pinned.
	ErrChanged = errors.New("it is not the one that the lock pins: lock again, if it may be another")
)

// Builtin is the file that says what is built into a kernel.
const Builtin = "modules.builtin"

// Pin is a kernel by its digests.
type Pin struct {
	Release string `toml:"release"` // as uname -r tells it
	Size    int    `toml:"size"`
	SHA256  string `toml:"sha256"`
	// Modules is the SHA-256 over what sha256sum would list of the directory:
	// modules, and modules.builtin; "" without a directory.
	Modules string `toml:"modules,omitempty"`
}

// Kernel is one that was read.
type Kernel struct {
	Pin
	Image []byte

	dir  string            // "" for none
	sums map[string]string // of the files in it, hex
}

// Read reads the kernel in a file and its directory of modules ("" for none).
func Read(file, dir string) (*Kernel, error) {
	image, err := given.File(file, maxImage)
	if err != nil {
		return nil, err
	}
	release, err := Release(image)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	k := &Kernel{Pin: Pin{Release: release, Size: len(image), SHA256: hexSum(image)}, Image: image, dir: dir}
	if dir == "" {
		return k, nil
	}
	if base := filepath.Base(dir); base != release {
		return nil, fmt.Errorf("%s has the modules of kernel %s, and %s is %s", dir, base, file, release)
	}
	if k.sums, err = sums(dir); err != nil {
		return nil, err
	}
	if k.sums[Builtin] == "" {
		return nil, fmt.Errorf("%s: %w: it tells what is built into the kernel", filepath.Join(dir, Builtin), fs.ErrNotExist)
	}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(k.sums)) {
		fmt.Fprintf(&list, "%s  %s\n", k.sums[name], name)
	}
	k.Modules = hexSum([]byte(list.String()))
	return k, nil
}

// Check reports whether this is the kernel that was pinned.
func (k *Kernel) Check(want Pin) error {
	switch {
	case k.SHA256 != want.SHA256 || k.Size != want.Size || k.Release != want.Release:
		return fmt.Errorf("the kernel %s with SHA-256 %s: %w", k.Release, k.SHA256, ErrChanged)
	case k.Modules != want.Modules:
		return fmt.Errorf("the directory of modules %s: %w", k.dir, ErrChanged)
	}
	return nil
}

// Described reports whether anything tells what is built into the kernel.
func (k *Kernel) Described() bool { return k.dir != "" }

// Paths lists the files of the directory, sorted.
func (k *Kernel) Paths() []string { return slices.Sorted(maps.Keys(k.sums)) }

// Open returns a file of the directory, which must be as it was when its digest was
// taken.
func (k *Kernel) Open(name string) ([]byte, error) {
	want, ok := k.sums[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	raw, err := given.File(filepath.Join(k.dir, filepath.FromSlash(name)), maxModule)
	if err != nil {
		return nil, err
	}
	if hexSum(raw) != want {
		return nil, fmt.Errorf("%s: %w", name, ErrChanged)
	}
	return raw, nil
}

// Offsets in a bzImage (Linux, Documentation/arch/x86/boot.rst).
const (
	atMagic    = 0x202 // "HdrS"
	atProtocol = 0x206
	atVersion  = 0x20e // where the version's text is, less 0x200
	setupEnd   = 0x238
	oldest     = 0x20c // of the boot protocol: the first with 64-bit entries
)

var releaseForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$`)

// Release reads the release of a kernel out of its image.
func Release(image []byte) (string, error) {
	le := binary.LittleEndian
	switch {
	case bytes.HasPrefix(image, []byte("\x7fELF")):
		return "", fmt.Errorf("%w but the program within one: it is arch/x86/boot/bzImage that is started", ErrImage)
	case len(image) < setupEnd || string(image[atMagic:atMagic+4]) != "HdrS":
		return "", fmt.Errorf("%w: it has no setup header", ErrImage)
	case le.Uint16(image[atProtocol:]) < oldest:
		return "", fmt.Errorf("%w of 64 bits: its boot protocol is %#x", ErrImage, le.Uint16(image[atProtocol:]))
	}
	text := image[min(0x200+int(le.Uint16(image[atVersion:])), len(image)):]
	text = text[:min(len(text), 256)]
	words := bytes.Fields(text[:max(bytes.IndexByte(text, 0), 0)])
	if len(words) == 0 || !releaseForm.Match(words[0]) {
		return "", fmt.Errorf("%w: it does not tell its release", ErrImage)
	}
	return string(words[0]), nil
}

// sums takes the digests of the modules in a directory, and of what tells which
// there are none of. Links, such as those to the sources, are left out.
func sums(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || name != Builtin && !isModule(name) {
			return err
		}
		if len(out) == maxModules {
			return fmt.Errorf("%s has more than %d modules", dir, maxModules)
		}
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		out[name] = hex.EncodeToString(h.Sum(nil))
		return nil
	})
	return out, err
}

func isModule(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".ko") || strings.HasSuffix(base, ".ko.xz") || strings.HasSuffix(base, ".ko.zst")
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
