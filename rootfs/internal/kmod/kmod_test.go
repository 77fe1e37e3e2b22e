package kmod

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

// set is a kernel with these modules, each with what it says of itself.
func set(modules map[string][]string) *Set {
	var paths []string
	for name := range modules {
		paths = append(paths, "kernel/"+name+".ko")
	}
	return NewSet(paths, []byte("kernel/fs/ext4.ko\n"), func(p string) ([]byte, error) {
		return rootfstest.Module(modules[strings.TrimSuffix(strings.TrimPrefix(p, "kernel/"), ".ko")]...), nil
	})
}

func order(t *testing.T, s *Set, first, later []string) string {
	t.Helper()
	got, err := s.Closure(first, later)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range got {
		name := m.Name
		if m.Optional {
			name = "-" + name
		}
		if m.Later {
			name = "+" + name
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestClosure(t *testing.T) {
	s := set(map[string][]string{
		"dm-verity": {"name=dm_verity", "depends=dm-bufio,dm_mod"},
		"dm-bufio":  {"depends=dm-mod"},
		"dm-mod":    {"depends="},
		"dm-crypt":  {"depends=dm-mod,ext4", "softdep=pre: sha256 missing post: dm-bufio"},
		"sha256":    {"depends="},

		"crc32c_generic": {"depends="},
		"libcrc32c":      {"depends=", "softdep=pre: crc32c"},
		"btrfs":          {"depends=libcrc32c", "softdep=pre: crypto-crc32c crypto-xxhash64"},
	})
	for _, c := range []struct {
		names []string
		later []string
		want  string
	}{
		{[]string{"dm-mod"}, nil, "dm_mod"},
		{[]string{"dm_verity"}, nil, "dm_mod dm_bufio dm_verity"},
		{[]string{"dm_verity", "dm-mod", "dm_verity"}, nil, "dm_mod dm_bufio dm_verity"},
		{[]string{"ext4"}, nil, ""}, // in the kernel
		{[]string{"-absent", "-dm_bufio"}, nil, "-dm_mod -dm_bufio"},
		{[]string{"-dm_bufio", "dm_mod"}, nil, "dm_mod -dm_bufio"}, // needed by one that must load
		{[]string{"dm_crypt"}, nil, "-sha256 dm_mod dm_crypt"},
		{[]string{"libcrc32c"}, nil, "-crc32c_generic libcrc32c"}, // which has no module of the algorithm's name
		{[]string{"btrfs"}, nil, "-crc32c_generic libcrc32c btrfs"},
		{nil, []string{"dm_bufio"}, "+dm_mod +dm_bufio"},
		{[]string{"dm_mod"}, []string{"dm_verity", "dm_mod"}, "dm_mod +dm_bufio +dm_verity"},
		{[]string{"-dm_bufio"}, []string{"dm_verity"}, "dm_mod dm_bufio +dm_verity"}, // needed later by one that must load
	} {
		if got := order(t, s, c.names, c.later); got != c.want {
			t.Errorf("%v, later %v: loads %q, want %q", c.names, c.later, got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	s := set(map[string][]string{"a": {"depends=b"}, "b": {"depends=a"}, "c": {"depends=gone"}})
	for _, name := range []string{"absent", "a", "c"} {
		if _, err := s.Closure([]string{name}, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, raw := range map[string][]byte{"empty": nil, "a program": rootfstest.Program(""), "text": []byte("\x7fELF and no more")} {
		s := NewSet([]string{"m.ko"}, nil, func(string) ([]byte, error) { return raw, nil })
		if _, err := s.Closure([]string{"m"}, nil); !errors.Is(err, ErrModule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range []string{"m.ko.xz", "m.ko.zst"} {
		s := NewSet([]string{file}, nil, func(string) ([]byte, error) { return []byte("not compressed so"), nil })
		if _, err := s.Closure(nil, []string{"m"}); !errors.Is(err, ErrModule) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// What a module says of itself is found whatever else is in it, and anything else
// is an error.
func FuzzModule(f *testing.F) {
	f.Add("m.ko", rootfstest.Module("depends=a,b-c", "softdep=pre: d"))
	f.Add("m.ko.zst", []byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		content, err := decompress(name, raw)
		if err != nil {
			return
		}
		info, err := parseInfo(content)
		if err == nil && slices.ContainsFunc(info.depends, func(s string) bool { return strings.ContainsAny(s, "-,") }) {
			t.Error(fmt.Sprint(info))
		}
	})
}
