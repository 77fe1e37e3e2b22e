package sink

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// indexes reads back which entries a file has.
func indexes(t *testing.T, path string) []int64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []int64
	for line := range bytes.Lines(raw) {
		if line[len(line)-1] != '\n' {
			t.Errorf("%s: a line has no end: %q", path, line)
		}
		out = append(out, indexIn(line))
	}
	return out
}

func newFile(t *testing.T) *File {
	t.Helper()
	f := &File{Path: filepath.Join(t.TempDir(), "audit.jsonl"), MaxSize: 1 << 20, Sync: true, Format: AsEntry}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (s *File) must(t *testing.T, from, n int64) {
	t.Helper()
	if err := s.Deliver(t.Context(), events(t, from, n)); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	f := newFile(t)
	f.must(t, 0, 3)
	f.must(t, 2, 2) // 2 comes again
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again := &File{Path: f.Path, MaxSize: 1 << 20, Format: AsOCSF(source)} // a new process, with another format
	again.must(t, 1, 5)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	again = &File{Path: f.Path, MaxSize: 1 << 20, Format: AsEntry}
	again.must(t, 4, 3)
	if got := indexes(t, f.Path); !slices.Equal(got, []int64{0, 1, 2, 3, 4, 5, 6}) {
		t.Errorf("entries %v", got)
	}
}

// A crash in the midst of a line, and a file that somebody rotated away.
func TestFileRepairs(t *testing.T) {
	f := newFile(t)
	f.must(t, 0, 2)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := os.OpenFile(f.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteString(`{"index":2,"ki`); err != nil {
		t.Fatal(err)
	}
	_ = h.Close()
	f.must(t, 2, 2)
	if got := indexes(t, f.Path); !slices.Equal(got, []int64{0, 1, 2, 3}) {
		t.Errorf("entries %v", got)
	}
	if err := os.Rename(f.Path, f.Path+".old"); err != nil {
		t.Fatal(err)
	}
	f.must(t, 4, 1)
	if got := indexes(t, f.Path); !slices.Equal(got, []int64{4}) {
		t.Errorf("entries %v", got)
	}
}

func TestFileRotates(t *testing.T) {
	f := newFile(t)
	line := int64(len(events(t, 0, 1)[0].Leaf)) + 1
	f.MaxSize, f.Keep = 3*line+2, 2
	f.must(t, 0, 10)
	f.must(t, 10, 3)
	files, err := filepath.Glob(f.Path + ".*")
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	var all []int64
	for _, name := range append(files, f.Path) {
		got := indexes(t, name)
		if last := got[len(got)-1]; name != f.Path && name != fmt.Sprintf("%s.%020d", f.Path, last) {
			t.Errorf("%s ends with entry %d", name, last)
		}
		all = append(all, got...)
	}
	if !slices.IsSorted(all) || all[len(all)-1] != 12 || int64(len(all)) != 12-all[0]+1 || len(all) < 7 {
		t.Errorf("entries %v", all)
	}
}

func TestFileRefuses(t *testing.T) {
	f := newFile(t)
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), f.Path); err != nil {
		t.Fatal(err)
	}
	if err := f.Deliver(t.Context(), events(t, 0, 1)); err == nil {
		t.Error("a link was followed")
	}
	f.Path = filepath.Join(t.TempDir(), "none", "x")
	if err := f.Deliver(t.Context(), events(t, 0, 1)); err == nil {
		t.Error("a file in a folder that is not there")
	}
}

// Where the disk is full nothing is confirmed, and half a line does not stay.
func TestFileFull(t *testing.T) {
	f := newFile(t)
	f.must(t, 0, 1)
	_ = f.f.Close() // every write fails from now on
	if err := f.Deliver(t.Context(), events(t, 1, 2)); err == nil {
		t.Fatal("confirmed what was not written")
	}
	f.must(t, 1, 2)
	if got := indexes(t, f.Path); !slices.Equal(got, []int64{0, 1, 2}) {
		t.Errorf("entries %v", got)
	}
}

// A file that is behind catches up from the log.
func TestFileEndToEnd(t *testing.T) {
	s := newStage(t)
	s.fill(700)
	f := newFile(t)
	stop := s.run(s.open("one", Spec{Name: "f", Type: "file", Sink: f, Timeout: 1e9}))
	s.fill(5)
	for s.cursor("f").Next < 705 {
		s.log.Appended()
	}
	stop()
	got := indexes(t, f.Path)
	for i, index := range got {
		if index != int64(i) {
			t.Fatalf("line %d has entry %d", i, index)
		}
	}
	if len(got) != 705 {
		t.Errorf("%d lines", len(got))
	}
}
