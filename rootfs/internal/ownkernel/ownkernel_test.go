package ownkernel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

// own is a kernel in a folder, with a module and what is built in.
func own(t *testing.T) (file, dir string) {
	t.Helper()
	root := t.TempDir()
	if err := rootfstest.WriteOwnKernel(root); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "bzImage"), filepath.Join(root, "modules", rootfstest.OwnRelease)
}

func TestRead(t *testing.T) {
	file, dir := own(t)
	k, err := ownkernel.Read(file, dir)
	if err != nil || k.Release != rootfstest.OwnRelease || !k.Described() {
		t.Fatalf("%+v, %v", k, err)
	}
	// Links, such as those to the sources, do not count.
	if err := os.Symlink("/usr/src", filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	again, err := ownkernel.Read(file, dir)
	if err != nil || again.Check(k.Pin) != nil {
		t.Errorf("read again, it is another: %v", err)
	}
	for _, name := range k.Paths() {
		if raw, err := k.Open(name); err != nil || len(raw) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
	}
	if _, err := k.Open("../bzImage"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is no module: %v", err)
	}
	alone, err := ownkernel.Read(file, "")
	if err != nil || alone.Described() || alone.Modules != "" {
		t.Errorf("%+v, %v", alone, err)
	}
	if err := alone.Check(k.Pin); !errors.Is(err, ownkernel.ErrChanged) {
		t.Errorf("without its modules: %v", err)
	}
}

func TestChanged(t *testing.T) {
	file, dir := own(t)
	k, err := ownkernel.Read(file, dir)
	if err != nil {
		t.Fatal(err)
	}
	change := func(name string) {
		t.Helper()
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(raw, 'x'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	module := k.Paths()[0]
	change(filepath.Join(dir, module))
	if _, err := k.Open(module); !errors.Is(err, ownkernel.ErrChanged) {
		t.Errorf("a module that was changed since: %v", err)
	}
	other, err := ownkernel.Read(file, dir)
	if err != nil || !errors.Is(other.Check(k.Pin), ownkernel.ErrChanged) {
		t.Errorf("another module: %v", err)
	}
	change(file)
	if other, err = ownkernel.Read(file, ""); err != nil || !errors.Is(other.Check(k.Pin), ownkernel.ErrChanged) {
		t.Errorf("another kernel: %v", err)
	}
}

func TestRefused(t *testing.T) {
	file, dir := own(t)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	patched := func(at int, value uint16) []byte {
		out := bytes.Clone(good)
		binary.LittleEndian.PutUint16(out[at:], value)
		return out
	}
	for name, image := range map[string][]byte{
		"nothing": nil, "cut": good[:0x237], "the inner program": []byte("\x7fELF and more"), "no header": patched(0x202, 0), "an old one": patched(0x206, 0x20a),
		"a version beyond its end": patched(0x20e, 0xffff), "a version that is none": patched(0x20e, 0),
	} {
		if _, err := ownkernel.Release(image); !errors.Is(err, ownkernel.ErrImage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, ownkernel.Builtin)); err != nil {
		t.Fatal(err)
	}
	if _, err := ownkernel.Read(file, dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "built into the kernel") {
		t.Errorf("without modules.builtin: %v", err)
	}
	if _, err := ownkernel.Read(file, filepath.Dir(dir)); err == nil || !strings.Contains(err.Error(), "has the modules of kernel") {
		t.Errorf("another's modules: %v", err)
	}
}

func FuzzRelease(f *testing.F) {
	f.Add(rootfstest.OwnKernel())
	f.Add([]byte("\x7fELF"))
	f.Add(bytes.Repeat([]byte{255}, 0x238))
	f.Fuzz(func(t *testing.T, image []byte) {
		release, err := ownkernel.Release(image)
		if err == nil && (release == "" || strings.ContainsAny(release, "/ \n\x00")) {
			t.Errorf("%q", release)
		}
	})
}
