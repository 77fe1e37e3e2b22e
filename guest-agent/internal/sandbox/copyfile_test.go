package sandbox

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

type unixStat = syscall.Stat_t

const shared = GuestDir + "/" + sharedDir + "/"

// goDirMode is what a Go runtime sends: os.FileMode bits.
const goDirMode = uint32(fs.ModeDir | 0o750)

func regular(name, data string) *agent.CopyFileRequest {
	return &agent.CopyFileRequest{Path: shared + name, FileSize: int64(len(data)), FileMode: unix.S_IFREG | 0o644, DirMode: goDirMode, Data: []byte(data)}
}

func directory(name string) *agent.CopyFileRequest {
	return &agent.CopyFileRequest{Path: shared + name, FileMode: unix.S_IFDIR | 0o755, DirMode: goDirMode}
}

func link(name, target string) *agent.CopyFileRequest {
	return &agent.CopyFileRequest{Path: shared + name, FileMode: unix.S_IFLNK | 0o777, DirMode: goDirMode, Data: []byte(target)}
}

func copyAll(t *testing.T, s *Sandbox, reqs ...*agent.CopyFileRequest) {
	t.Helper()
	for _, r := range reqs {
		if err := s.CopyFile(r); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(t *testing.T, s *Sandbox, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, sharedDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// A config map and its rotation, as a runtime sends them (kata-agent 2.12).
func TestCopyConfigMap(t *testing.T) {
	s := newTestSandbox(t)
	copyAll(t, s, directory("c1-cfg"), directory("c1-cfg/..1"), regular("c1-cfg/..1/key1", "v1"), link("c1-cfg/..data", "..1"), link("c1-cfg/key1", "..data/key1"))
	if got := contents(t, s, "c1-cfg/key1"); got != "v1" {
		t.Errorf("%q", got)
	}
	copyAll(t, s, directory("c1-cfg/..2"), regular("c1-cfg/..2/key1", "v2"), link("c1-cfg/..data", "..2"), directory("c1-cfg"))
	if got := contents(t, s, "c1-cfg/key1"); got != "v2" {
		t.Errorf("after the rotation: %q", got)
	}
	if got := contents(t, s, "c1-cfg/..1/key1"); got != "v1" {
		t.Errorf("an existing directory was not kept: %q", got)
	}
}

func TestCopyReplaces(t *testing.T) {
	s := newTestSandbox(t)
	copyAll(t, s,
		regular("a", "one"), regular("a", "two"), // file over file
		link("b", "a"), regular("b", "three"), // file over link: not through it
		directory("c"), regular("c/x", "x"), regular("c", "four"), // file over tree
		regular("d", "x"), directory("d"), // directory over file
		directory("e"), regular("e/x", "x"), link("e", "a"), // link over tree
		regular("empty", ""),
	)
	for name, want := range map[string]string{"a": "two", "b": "three", "c": "four", "e": "two", "empty": ""} {
		if got := contents(t, s, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if fi, err := os.Stat(filepath.Join(s.dir, sharedDir, "d")); err != nil || !fi.IsDir() {
		t.Errorf("d: %v, %v", fi, err)
	}
}

func TestCopyInPieces(t *testing.T) {
	s := newTestSandbox(t)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	piece := func(offset, n int) *agent.CopyFileRequest {
		r := regular("deep/er/file.txt", "")
		r.FileSize, r.Offset, r.Data = int64(len(data)), int64(offset), data[offset:offset+n]
		return r
	}
	name := filepath.Join(s.dir, sharedDir, "deep/er/file.txt")
	copyAll(t, s, piece(0, 4000))
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("visible before it is complete: %v", err)
	}
	other := regular("deep/er/file.conf", "other") // same name but for its ending
	copyAll(t, s, other, piece(4000, 4000))
	if err := s.CopyFile(piece(9000, 1000)); err == nil {
		t.Error("a piece that leaves a hole was accepted")
	}
	copyAll(t, s, piece(0, 5000)) // the host starts again
	if err := s.CopyFile(piece(8000, 2000)); err == nil {
		t.Error("a piece of the first try was accepted")
	}
	copyAll(t, s, piece(5000, 5000))
	if got := contents(t, s, "deep/er/file.txt"); got != string(data) {
		t.Errorf("%d bytes", len(got))
	}
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(entries) != 2 {
		t.Errorf("beside the files there is %v, %v", entries, err)
	}
	if fi, err := os.Stat(filepath.Dir(name)); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("parent's mode %v, %v", fi.Mode(), err)
	}
}

func TestCopyOwner(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	r := regular("new/f", "x")
	r.Uid, r.Gid, r.FileMode = 1000, 2000, unix.S_IFREG|0o6640
	copyAll(t, s, r)
	fi, err := os.Stat(filepath.Join(s.dir, sharedDir, "new/f"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*unixStat); st.Uid != 1000 || st.Gid != 2000 || st.Mode&0o7777 != 0o6640 {
		t.Errorf("owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
	if fi, err = os.Stat(filepath.Join(s.dir, sharedDir, "new")); err != nil || fi.Sys().(*unixStat).Uid != 1000 {
		t.Errorf("parent: %v, %v", fi.Sys(), err)
	}
	if fi, err = os.Stat(filepath.Join(s.dir, sharedDir)); err != nil || fi.Sys().(*unixStat).Uid != 0 {
		t.Errorf("the shared directory itself: %v, %v", fi.Sys(), err)
	}
}

func TestCopyCannotEscape(t *testing.T) {
	s := newTestSandbox(t)
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	copyAll(t, s, link("abs", outside), link("rel", up+outside[1:]), link("file", victim), link("loop", "loop"), link("state", "../../journal"))
	tests := map[string]*agent.CopyFileRequest{
		"dots":                     regular("../../escaped", "x"),
		"dots to the state":        regular("../escaped", "x"),
		"another tree":             {Path: outside + "/escaped", FileMode: unix.S_IFREG, FileSize: 1, Data: []byte("x")},
		"the shared dir itself":    {Path: strings.TrimSuffix(shared, "/"), FileMode: unix.S_IFLNK, Data: []byte("/")},
		"a relative path":          {Path: "escaped", FileMode: unix.S_IFREG},
		"file through a link":      regular("abs/escaped", "x"),
		"file through dots":        regular("rel/escaped", "x"),
		"file through a state dir": regular("state/escaped", "x"),
		"parents through a link":   regular("abs/a/b/escaped", "x"),
		"directory through a link": directory("abs/escaped"),
		"link through a link":      link("abs/escaped", "x"),
		"loop":                     regular("loop/escaped", "x"),
		"zero byte":                regular("a\x00b", "x"),
		"device":                   {Path: shared + "dev", FileMode: unix.S_IFBLK | 0o666},
		"no type":                  {Path: shared + "f", FileMode: 0o644},
		"negative size":            {Path: shared + "f", FileMode: unix.S_IFREG, FileSize: -1},
		"negative offset":          {Path: shared + "f", FileMode: unix.S_IFREG, FileSize: 5, Offset: -1},
		"offset beyond the end":    {Path: shared + "f", FileMode: unix.S_IFREG, FileSize: 5, Offset: 6},
		"more than announced":      {Path: shared + "f", FileMode: unix.S_IFREG, FileSize: 1, Data: []byte("xx")},
		"huge":                     {Path: shared + "f", FileMode: unix.S_IFREG, FileSize: 1 << 62},
		"negative owner":           {Path: shared + "f", FileMode: unix.S_IFREG, Uid: -1},
		"empty link":               link("l", ""),
		"long link":                link("l", strings.Repeat("a", unix.PathMax)),
	}
	for name, req := range tests {
		if err := s.CopyFile(req); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	copyAll(t, s, regular("file", "replaces the link")) // not what the link points to
	if raw, err := os.ReadFile(victim); err != nil || string(raw) != "untouched" {
		t.Errorf("the file outside: %q, %v", raw, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 3 {
		t.Errorf("in the state directory: %v, %v", entries, err)
	}
}

// Whatever a host sends, in two calls, nothing outside of the shared directory
// changes.
func FuzzCopyFile(f *testing.F) {
	f.Add("a", "..", uint32(unix.S_IFLNK), "a/b", "x", uint32(unix.S_IFREG))
	f.Add("a/b", "x", uint32(unix.S_IFREG|0o644), "a", "", uint32(unix.S_IFDIR|0o755))
	f.Add("../x", "/", uint32(unix.S_IFLNK), "..", "y", uint32(unix.S_IFDIR))
	f.Fuzz(func(t *testing.T, name1, data1 string, mode1 uint32, name2, data2 string, mode2 uint32) {
		dir := t.TempDir()
		state := filepath.Join(dir, "state")
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Dir: state})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.root.Close() }()
		before := tree(t, dir)
		for _, c := range []struct {
			name, data string
			mode       uint32
		}{{name1, data1, mode1}, {name2, data2, mode2}} {
			_ = s.CopyFile(&agent.CopyFileRequest{Path: shared + c.name, FileMode: c.mode, DirMode: 0o700, FileSize: int64(len(c.data)), Data: []byte(c.data)})
		}
		if after := tree(t, dir); after != before {
			t.Fatalf("outside of the shared directory\n%s\nbecame\n%s", before, after)
		}
	})
}

// tree lists everything below dir but the contents of the shared directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		b.WriteString(path + " " + fi.Mode().String() + "\n")
		if strings.HasSuffix(path, "/state/"+sharedDir) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
