package tsm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"
)

// The real kernel's files are files: what can be shown of Linux on a machine
// without the hardware is that it reads, writes and refuses as it says.
func TestLinux(t *testing.T) {
	dir := t.TempDir()
	k := Linux{Root: dir}
	if err := os.WriteFile(filepath.Join(dir, "attribute"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := k.ReadFile("attribute", 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := k.ReadFile("attribute", 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%q, %v", b, err)
	}
	if err := k.WriteFile("attribute", []byte("ab")); err != nil {
		t.Error(err)
	}
	if b, err := k.ReadFile("attribute", 5); err != nil || string(b) != "ab345" {
		t.Errorf("%q, %v: a write must not cut", b, err)
	}
	if err := k.WriteFile("absent", []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a write must not create: %v", err)
	}
	if err := k.Mkdir("object"); err != nil || !k.Exists("object") {
		t.Error(err)
	}
	if err := k.Remove("attribute"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file was removed: %v", err)
	}
	if err := k.Remove("object"); err != nil || k.Exists("object") {
		t.Error(err)
	}
	for _, name := range []string{"../x", "/etc/passwd", ""} {
		_, read := k.ReadFile(name, 1)
		if read == nil || k.WriteFile(name, nil) == nil || k.Mkdir(name) == nil || k.Remove(name) == nil || k.Exists(name) {
			t.Errorf("%q is let out of the root", name)
		}
	}
}

func TestLinuxIoctl(t *testing.T) {
	var arg [8]byte
	k := Linux{Root: "/"}
	// TCGETS at a device that is no terminal.
	if err := k.Ioctl("dev/null", 0x5401, unsafe.Pointer(&arg)); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("got %v, want ENOTTY", err)
	}
	if err := k.Ioctl("dev/no-such-device", 0, unsafe.Pointer(&arg)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
