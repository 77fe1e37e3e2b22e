package lock_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/archive"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

// index is an archive with the packages of the tests' recipe.
func index(t *testing.T, without ...string) *archive.Index {
	t.Helper()
	var b strings.Builder
	for _, p := range []struct{ name, depends string }{
		{"linux-image-test", "kmod"}, {"runtime", "liba, libc"}, {"liba", "libc"}, {"libc", ""}, {"certificates", "openssl"}, {"stub", ""}, {"firmware", ""}, {"unused", ""},
	} {
		if strings.Contains(strings.Join(without, " "), p.name) {
			continue
		}
		b.WriteString("Package: " + p.name + "\nVersion: 1.0-1\nArchitecture: amd64\nDepends: " + p.depends + "\nFilename: pool/" + p.name + ".deb\nSize: 7\nSHA256: " + strings.Repeat("a", 64) + "\n\n")
	}
	x := archive.NewIndex()
	if err := x.Read(strings.NewReader(b.String()), "https://archive.example.org"); err != nil {
		t.Fatal(err)
	}
	return x
}

func parse(t *testing.T) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Parse([]byte(rootfstest.Recipe))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMake(t *testing.T) {
	l, err := lock.Make(parse(t), index(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range l.Package {
		names = append(names, p.Name)
	}
	// Programs with what they depend on; kernel, data, stub and firmware alone.
	if got := strings.Join(names, " "); got != "certificates firmware liba libc linux-image-test runtime stub" {
		t.Error(got)
	}
	raw, err := l.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := lock.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := again.Marshal(); err != nil || !bytes.Equal(raw, other) {
		t.Errorf("read and written again, it is another file: %v", err)
	}
	if err := again.Serves(parse(t)); err != nil {
		t.Error(err)
	}
	for _, missing := range []string{"linux-image-test", "liba", "certificates", "firmware"} {
		if _, err := lock.Make(parse(t), index(t, missing), nil); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// A kernel from no package is pinned beside the packages.
func TestOwnKernel(t *testing.T) {
	r := parse(t)
	r.Kernel.Package, r.Kernel.File = nil, "bzImage"
	pin := &ownkernel.Pin{Release: "6.13", Size: 7, SHA256: strings.Repeat("a", 64), Modules: strings.Repeat("b", 64)}
	l, err := lock.Make(r, index(t, "linux-image-test"), pin)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := lock.Parse(raw)
	if err != nil || *again.Own != *pin || again.Kernel != "" {
		t.Errorf("%+v, %v", again, err)
	}
	if err := again.Serves(r); err != nil {
		t.Error(err)
	}
	if err := again.Serves(parse(t)); err == nil || !strings.Contains(err.Error(), "lock again") {
		t.Errorf("a recipe with a package: %v", err)
	}
	for _, bad := range []string{strings.Replace(string(raw), "sha256 = 'aa", "sha256 = 'AA", 1), strings.Replace(string(raw), "kernel = ''", "kernel = 'runtime'", 1)} {
		if _, err := lock.Parse([]byte(bad)); err == nil || bad == string(raw) {
			t.Errorf("accepted: %s", bad)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	if err := rootfstest.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "guest.lock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, with, want string }{
		{"schema = 1", "schema = 2", "lock again"},
		{"kernel = 'linux-image-test'", "kernel = 'other'", "should have the kernel"},
		{"name = 'liba'", "name = 'libc'", "twice"},
		{"url = 'file://", "url = 'ftp://", "no address"},
		{"url = 'file://", "url = 'https://user:word@host", "password"},
		{"sha256 = '", "sha256 = 'A", "no SHA-256"},
		{"size = ", "size = -", "a size of"},
		{"version", "versions", "not as 'rootfs lock' writes it"},
	} {
		text := strings.Replace(string(good), c.old, c.with, 1)
		if _, err := lock.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.with, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("schema = 1\nkernel = 'a'\n[[package]]\nname = 'a'\nversion = '1'\nsize = 1\nsha256 = '" + strings.Repeat("0", 64) + "'\nurl = 'file:///a'\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := lock.Parse(raw)
		if err != nil {
			return
		}
		text, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock.Parse(text); err != nil {
			t.Errorf("accepted, and not when written again: %v", err)
		}
	})
}
