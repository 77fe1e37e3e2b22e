package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// numbered is a small file that differs from all others, also in its metadata.
func numbered(i int) entry {
	body := strings.Repeat(fmt.Sprint(i, " "), smallFile)[:i*6151%(smallFile+2000)] // a few are no small ones
	e := file(fmt.Sprintf("d/%d", i), body)
	e.Mode = []int64{0o644, 0o4755, 0o600, 0o2711}[i%4]
	e.Uid, e.Gid = i%3, i%5
	e.ModTime = sometime.Add(time.Duration(i) * time.Second)
	if i%7 == 0 {
		e.PAXRecords = map[string]string{xattrRecord + "user.number": fmt.Sprint(i)}
	}
	return e
}

func (e entry) check(t *testing.T, layer string) {
	t.Helper()
	at := filepath.Join(layer, e.Name)
	if got, err := os.ReadFile(at); err != nil || string(got) != e.body {
		t.Fatalf("%s has other content (%d bytes of %d): %v", e.Name, len(got), len(e.body), err)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(at, &st))
	if int64(st.Mode&0o7777) != e.Mode || int(st.Uid) != e.Uid || int(st.Gid) != e.Gid {
		t.Errorf("%s is %o of %d:%d, want %o of %d:%d", e.Name, st.Mode&0o7777, st.Uid, st.Gid, e.Mode, e.Uid, e.Gid)
	}
	if got := time.Unix(st.Mtim.Unix()); !got.Equal(e.ModTime) {
		t.Errorf("%s was modified at %v, want %v", e.Name, got, e.ModTime)
	}
	value := make([]byte, 20)
	n, _ := unix.Lgetxattr(at, "user.number", value)
	if want := e.PAXRecords[xattrRecord+"user.number"]; string(value[:max(0, n)]) != want {
		t.Errorf("%s has the attribute %q, want %q", e.Name, value[:max(0, n)], want)
	}
}

// Files are the same, whoever finishes them, and on any number of cores.
func TestFinished(t *testing.T) {
	needRoot(t)
	for _, cores := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(cores, " cores"), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			all := []entry{dir("d")}
			for i := range 1000 {
				all = append(all, numbered(i))
			}
			p := newPlace(t)
			res, err := Apply(t.Context(), bytes.NewReader(archive(t, all...)), p.layer, Limits{})
			must(t, err)
			var size int64
			for _, e := range all[1:] {
				e.check(t, p.layer)
				size += int64(len(e.body))
			}
			if res.Bytes != size {
				t.Errorf("%d bytes were counted, want %d", res.Bytes, size)
			}
		})
	}
}

// What the archive does to a name does not wait for the file to be finished.
func TestUnfinished(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	_, err := Apply(t.Context(), bytes.NewReader(archive(t,
		file("a", "first"), link("b", "a"), file("a", "second"), link("c", "a"), file("a", "third"),
		file("turns", "x"), dir("turns"), file("turns/in", "inside"),
	)), p.layer, Limits{})
	must(t, err)
	for name, want := range map[string]string{"a": "third", "b": "first", "c": "second", "turns/in": "inside"} {
		if got, err := os.ReadFile(filepath.Join(p.layer, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
}

// The first file that cannot be finished is the one that the error names, however
// many come after it, and no descriptor stays open.
func TestNotFinished(t *testing.T) {
	needRoot(t)
	for _, n := range []int{0, 1, batchFiles - 1, batchFiles, 3 * batchFiles, 99} {
		var all []entry
		for i := range 100 {
			e := file(fmt.Sprint("file", i), "x")
			if i >= n {
				e.PAXRecords = map[string]string{xattrRecord + "trusted.overlay.opaque": "y"}
			}
			all = append(all, e)
		}
		p := newPlace(t)
		open := descriptors(t)
		_, err := Apply(t.Context(), bytes.NewReader(archive(t, all...)), p.layer, Limits{})
		refused, ok := errors.AsType[*FormatError](err)
		if want := fmt.Sprint("file", n); !ok || refused.Entry != want {
			t.Errorf("got %v, want a refusal of %s", err, want)
		}
		if now := descriptors(t); now != open {
			t.Errorf("%d descriptors are open, %d were before", now, open)
		}
	}
}

// So it is where the unpacker comes upon the later one before the second goroutine
// comes upon the earlier one.
func TestNotFinishedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		f := newFinisher(func(u unfinished) error {
			switch u.hdr.Name {
			case "helped":
				<-slow
				return unix.EDQUOT
			case "own":
				return unix.ENOSPC
			}
			return nil
		})
		f.help()
		synctest.Wait() // the second goroutine waits for work
		var seen error
		for _, name := range []string{"helped", "own", "next"} {
			for range batchFiles {
				if err := f.add(unfinished{fd: -1, hdr: &tar.Header{Name: name}}, strings.NewReader("")); err != nil {
					seen = err
				}
			}
		}
		if !errors.Is(seen, unix.ENOSPC) {
			t.Errorf("the unpacker goes on after %v", seen)
		}
		close(slow)
		if err := f.close(); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("got %v, want the error of the earlier file", err)
		}
	})
}

// A file system that is full says so, for a file that it has no room for.
func TestFull(t *testing.T) {
	needRoot(t)
	at := t.TempDir()
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=512k"))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	var all []entry
	for i := range 300 {
		all = append(all, file(fmt.Sprint("file", i), strings.Repeat("x", 4096)))
	}
	open := descriptors(t)
	_, err := Apply(t.Context(), bytes.NewReader(archive(t, all...)), at, Limits{})
	if named, ok := errors.AsType[*entryError](err); !ok || !errors.Is(err, unix.ENOSPC) || strings.Count(err.Error(), "entry ") != 1 {
		t.Fatalf("got %v (%v), want ENOSPC of one entry", err, named)
	}
	if now := descriptors(t); now != open {
		t.Errorf("%d descriptors are open, %d were before", now, open)
	}
}

// Headers are kept until their file is finished: large ones are not.
func TestLargeHeadersOfSmallFiles(t *testing.T) {
	needRoot(t)
	var all []entry
	for i := range batchFiles {
		e := file(fmt.Sprint("file", i), "x")
		e.PAXRecords = map[string]string{"VOUCHSAFE.comment": strings.Repeat("x", 1<<20-100)}
		all = append(all, e)
	}
	before, during := held(), uint64(0)
	src := io.MultiReader(bytes.NewReader(archive(t, all...)), readerFunc(func([]byte) (int, error) {
		during = held()
		return 0, io.EOF
	}))
	_, err := Apply(t.Context(), src, newPlace(t).layer, Limits{})
	must(t, err)
	if more := int64(during) - int64(before) - batchFiles<<20; more > 4<<20 { // beside the archive itself
		t.Errorf("%d bytes are held after %d headers of a megabyte", more, batchFiles)
	}
}

func held() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(names)
}
