package container

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A start that finds no room for all its pipes fails, and keeps none of them.
// Not parallel: the limit is that of the whole process.
func TestPipesWithoutDescriptors(t *testing.T) {
	free, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	lowest := uint64(free.Fd())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for room := range uint64(6) { // three pipes take six
		t.Run("", func(t *testing.T) {
			t.Cleanup(func() {
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
					t.Fatal(err)
				}
				if after := openFiles(t); after != before {
					t.Errorf("%d open files became %d", before, after)
				}
			})
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: lowest + room, Max: old.Max}); err != nil {
				t.Fatal(err)
			}
			if p, err := newPipes(uint32(os.Getuid()), uint32(os.Getgid()), 0); err == nil {
				_ = p.Close()
				t.Errorf("made with room for %d descriptors", room)
			}
		})
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Output may run ahead of its reader as far as was asked for, and no further;
// input is the kernel's matter.
func TestPipeSize(t *testing.T) {
	sizeOf := func(f *os.File) int {
		n, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	usual := sizeOf(r)
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[int]int{0: pipeSize, 8 << 10: 8 << 10, 512 << 10: 512 << 10} {
		p, err := newPipes(uint32(os.Getuid()), uint32(os.Getgid()), asked)
		if err != nil {
			t.Fatal(err)
		}
		for n, want := range []int{usual, want, want} {
			if got := sizeOf(p.far[n]); got != want {
				t.Errorf("%d bytes were asked for: %s has %d, want %d", asked, p.far[n].Name(), got, want)
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
