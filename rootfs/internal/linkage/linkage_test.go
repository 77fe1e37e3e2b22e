package linkage

import (
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

func source(files map[string][]byte) Source {
	return func(p string) (Found, bool) {
		raw, ok := files[p]
		return Found{p, raw}, ok
	}
}

const loader = "/lib64/ld-linux-x86-64.so.2"

func TestClosure(t *testing.T) {
	lookup := source(map[string][]byte{
		loader:                                rootfstest.Program(""),
		"/usr/lib/x86_64-linux-gnu/liba.so":   rootfstest.Program("", "libc.so.6", "liba.so"),
		"/usr/lib/x86_64-linux-gnu/libc.so.6": rootfstest.Program(""),
		"/usr/lib/libc.so.6":                  rootfstest.Program("", "never-looked-at"),
	})
	got, err := Closure(lookup, map[string][]byte{"p": rootfstest.Program(loader, "liba.so"), "static": rootfstest.Program("")})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{loader, "/usr/lib/x86_64-linux-gnu/liba.so", "/usr/lib/x86_64-linux-gnu/libc.so.6"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	_, err = Closure(lookup, map[string][]byte{"p": rootfstest.Program(loader, "libz.so"), "q": rootfstest.Program("", "liby.so")})
	if err == nil || !strings.Contains(err.Error(), "p needs libz.so") || !strings.Contains(err.Error(), "q needs liby.so") {
		t.Errorf("not all that is missing is told: %v", err)
	}
}

func FuzzNeeded(f *testing.F) {
	f.Add(rootfstest.Program(loader, "libc.so.6"))
	f.Add(rootfstest.Module("depends="))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = needed(raw) })
}
