package erofs

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// entriesOf reads a directory as entries.
func entriesOf(t *testing.T, dir string) []Entry {
	t.Helper()
	var out []Entry
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		e := Entry{Path: "/" + strings.TrimPrefix(strings.TrimPrefix(name, dir), "/"), Mode: info.Mode()}
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			e.Target, err = os.Readlink(name)
		case 0:
			e.Content, err = os.ReadFile(name)
		}
		must(t, err)
		out = append(out, e)
		return nil
	}))
	return out
}

// An image made from memory is that of a directory with the same files, which
// belong to root and have no time.
func TestEntriesAsDirectory(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "tree")
	for _, name := range []string{"bin", "etc/ssl/certs", "many", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	for i := range 300 {
		must(t, os.WriteFile(filepath.Join(dir, "many", strings.Repeat("n", i%200)+string(rune('a'+i/200))), bytes.Repeat([]byte("x"), i*37), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "bin/agent"), bytes.Repeat([]byte("agent"), 20_000), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "etc/empty"), nil, 0o600))
	must(t, os.Symlink("bin/agent", filepath.Join(dir, "init")))
	must(t, os.Chmod(filepath.Join(dir, "tmp"), 0o777|fs.ModeSticky))
	entries := entriesOf(t, dir)
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		must(t, os.Lchown(name, 0, 0))
		if d.Type() == fs.ModeSymlink {
			return nil // its time can be set only by the file's descriptor
		}
		return os.Chtimes(name, time.Unix(0, 0), time.Unix(0, 0))
	}))
	must(t, os.Remove(filepath.Join(dir, "init")))
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Path == "/init" })
	must(t, os.Chtimes(dir, time.Unix(0, 0), time.Unix(0, 0)))

	var want, got bytes.Buffer
	_, err := Write(t.Context(), &want, dir)
	must(t, err)
	slices.Reverse(entries) // their order does not matter
	blocks, err := WriteEntries(t.Context(), &got, entries)
	must(t, err)
	if int64(got.Len()) != blocks*BlockSize {
		t.Errorf("%d bytes are not %d blocks", got.Len(), blocks)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("the image of the entries is not that of the directory")
	}
}

func TestEntriesRefused(t *testing.T) {
	root := Entry{Path: "/", Mode: fs.ModeDir | 0o755}
	for name, entries := range map[string][]Entry{
		"none":                nil,
		"no root":             {{Path: "/a", Mode: 0o644}},
		"no directory":        {root, {Path: "/a/b", Mode: 0o644}},
		"below a file":        {root, {Path: "/a", Mode: 0o644}, {Path: "/a/b", Mode: 0o644}},
		"twice":               {root, {Path: "/a", Mode: 0o644}, {Path: "/a", Mode: 0o644}},
		"not clean":           {root, {Path: "/../a", Mode: 0o644}},
		"relative":            {root, {Path: "a", Mode: 0o644}},
		"a device":            {root, {Path: "/a", Mode: fs.ModeDevice | 0o644}},
		"a name that is long": {root, {Path: "/" + strings.Repeat("n", 256), Mode: 0o644}},
	} {
		if _, err := WriteEntries(t.Context(), &bytes.Buffer{}, entries); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
