package mountinfo

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	const table = `21 26 0:20 / /sys rw,nosuid,nodev shared:7 - sysfs sysfs rw
36 35 98:0 /a\040root /mnt/tab\011line\012back\134slash rw,noatime master:1 propagate_from:2 - ext3 /dev/a\043b rw,errors=continue
25 20 0:21 /pod /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
90 26 0:90 / /nothing rw - tmpfs  rw,size=4k
`
	got, err := Parse([]byte(table))
	want := []Mount{
		{"/", "/sys", "sysfs", "sysfs", "rw"},
		{"/a root", "/mnt/tab\tline\nback\\slash", "ext3", "/dev/a#b", "rw,errors=continue"},
		{"/pod", "/sys/fs/cgroup/memory", "cgroup", "cgroup", "rw,memory"},
		{"/", "/nothing", "tmpfs", "", "rw,size=4k"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, row := range []string{
		"x", "", "1 2 0:1 / /a rw", "1 2 0:1 / /a rw -", "1 2 0:1 / /a rw - tmpfs tmpfs", "a 2 0:1 / /a rw - tmpfs none rw",
		"1 -2 0:1 / /a rw - tmpfs none rw", `1 2 0:1 / /a\ rw - tmpfs none rw`, `1 2 0:1 / /a\04 rw - tmpfs none rw`,
		`1 2 0:1 / /a\999 rw - tmpfs none rw`, `1 2 0:1 / /a\777 rw - tmpfs none rw`, `1 2 0:1 / /a\+40 rw - tmpfs none rw`,
		"1 2 0:1 /  rw - tmpfs none rw", "1 2 0:1 / a rw - tmpfs none rw",
	} {
		if got, err := Parse([]byte(table + row + "\n")); err == nil {
			t.Errorf("%q was understood: %q", row, got[len(got)-1])
		}
	}
}

func TestBelow(t *testing.T) {
	all := []Mount{{Point: "/"}, {Point: "/a"}, {Point: "/a/b c"}, {Point: "/a/b c/d"}, {Point: "/ab"}}
	for dir, want := range map[string][]string{
		"/a": {"/a", "/a/b c", "/a/b c/d"}, "/a/b c": {"/a/b c", "/a/b c/d"}, "/a/b": nil, "/": {"/", "/a", "/a/b c", "/a/b c/d", "/ab"},
	} {
		if got := Below(all, dir); !slices.Equal(got, want) {
			t.Errorf("%s: %q", dir, got)
		}
	}
}

// What the kernel writes of a mount whose place and source have every character
// that it escapes is that place and that source.
func TestTheKernelsOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	at := filepath.Join(t.TempDir(), "a b\tc\nd\\e#f\\040g")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	const source = "my #1 \\source\n"
	if err := unix.Mount(source, at, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	all, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(m Mount) bool { return m.Point == at && m.Source == source && m.Root == "/" && m.Type == "tmpfs" }) {
		t.Errorf("%q is not in the table: %q", at, Below(all, filepath.Dir(at)))
	}
}

// escape does what the kernel does.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(" \t\n\\#", c) >= 0 {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// A table that is understood says the same when it is written again.
func FuzzParse(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Add(`1 0 0:1 /a\040b /c\134 rw - tmpfs  rw` + "\n")
	f.Add(`1 0 0:1 / /\377\000\` + "\n")
	f.Add("1 0 0:1 / / rw " + strings.Repeat("x:1 ", 255) + "- a b c\n" + strings.Repeat("-", 300))
	f.Fuzz(func(t *testing.T, table string) {
		all, err := Parse([]byte(table))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, m := range all {
			fmt.Fprintf(&again, "1 0 0:1 %s %s rw - %s %s %s\n", escape(m.Root), escape(m.Point), m.Type, escape(m.Source), m.Options)
		}
		if got, err := Parse([]byte(again.String())); err != nil || !slices.Equal(got, all) {
			t.Fatalf("%q became %q, %v", all, got, err)
		}
	})
}
