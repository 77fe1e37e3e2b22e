package pull

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func ring(t *testing.T, src io.Reader, b *blocks, see func([]byte)) *ahead {
	t.Helper()
	a, err := readAhead(src, b, decodedBlocks, see)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What comes through is what the source gives, whatever the sizes of reads.
func TestReadAhead(t *testing.T) {
	long := make([]byte, 3*decodedBlocks*blockSize+7)
	_, _ = rand.Read(long)
	for name, want := range map[string][]byte{"nothing": nil, "a little": []byte("abc"), "one buffer": long[:blockSize], "more than all buffers": long} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "end with the last bytes": iotest.DataErrReader,
		} {
			b := &blocks{}
			b.enter()
			seen := sha256.New()
			for _, see := range []func([]byte){nil, func(p []byte) { _, _ = seen.Write(p) }} {
				a := ring(t, wrap(bytes.NewReader(want)), b, see)
				got, err := io.ReadAll(iotest.HalfReader(a))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %s: %d of %d bytes, %v", name, how, len(got), len(want), err)
				}
				a.close()
			}
			if sum := sha256.Sum256(want); !bytes.Equal(seen.Sum(nil), sum[:]) {
				t.Errorf("%s, %s: something else was seen than read", name, how)
			}
			if b.leave(); b.lent != 0 || b.free != nil {
				t.Errorf("%s, %s: %d spare blocks are lent, %d are kept", name, how, b.lent, len(b.free))
			}
		}
	}
}

// An error comes after the bytes before it, and again.
func TestReadAheadErrors(t *testing.T) {
	broken := errors.New("broken")
	a := ring(t, io.MultiReader(bytes.NewReader(make([]byte, blockSize+1)), iotest.ErrReader(broken)), &blocks{}, func([]byte) {})
	defer a.close()
	got, err := io.ReadAll(a)
	if len(got) != blockSize+1 || !errors.Is(err, broken) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, broken) {
		t.Errorf("then %v", err)
	}
}

// buggy is a decoder with a bug.
type buggy struct{ r io.Reader }

func (b *buggy) Read(p []byte) (int, error) {
	if n, err := b.r.Read(p); err == nil {
		return n, nil
	}
	panic("a bug")
}

// A decoder that panics is one that fails; what it gave before is read.
func TestReadAheadContainsPanics(t *testing.T) {
	b := &blocks{}
	b.enter()
	a := ring(t, &buggy{bytes.NewReader(make([]byte, 3*blockSize))}, b, nil)
	got, err := io.ReadAll(a)
	if _, ok := errors.AsType[*fault.Panic](err); !ok || len(got) != 3*blockSize || !strings.Contains(err.Error(), "ahead_test.go") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.close()
	if b.leave(); b.lent != 0 || b.free != nil {
		t.Errorf("%d spare blocks are lent, %d are kept", b.lent, len(b.free))
	}
}

// endless counts what is read from it.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	e.n += len(p)
	return len(p), nil
}

// It reads no further ahead than it has blocks, and stops when it is closed.
func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocks{}
		b.enter()
		src, seen := &endless{}, 0
		a := ring(t, src, b, func(p []byte) { seen += len(p) })
		synctest.Wait()
		if want := decodedBlocks * blockSize; src.n != want || seen != want {
			t.Errorf("%d bytes were read and %d seen before anybody asked, not %d", src.n, seen, want)
		}
		if _, err := io.ReadFull(a, make([]byte, blockSize+1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := (decodedBlocks + 1) * blockSize; src.n != want {
			t.Errorf("%d bytes were read, not %d", src.n, want)
		}

		// A second one finds fewer to spare, and a third none. Each has its own.
		second, third := &endless{}, &endless{}
		more := []*ahead{ring(t, second, b, nil)}
		synctest.Wait()
		more = append(more, ring(t, third, b, nil))
		synctest.Wait()
		if want := (2*ringBlocks + spareBlocks - decodedBlocks) * blockSize; second.n != want {
			t.Errorf("the second read %d bytes, not %d", second.n, want)
		}
		if want := ringBlocks * blockSize; third.n != want {
			t.Errorf("the third read %d bytes, not %d", third.n, want)
		}

		a.close()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, errClosed) {
			t.Errorf("after close: %v", err)
		}
		// Blocks that came back are to be had, by those who run short again.
		if _, err := io.CopyN(io.Discard, more[1], 2*blockSize); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := (decodedBlocks + 1) * blockSize; third.n != want {
			t.Errorf("then the third read %d bytes, not %d", third.n, want)
		}
		for _, m := range more {
			m.close()
		}
		if b.leave(); b.lent != 0 || len(b.free) != 0 {
			t.Errorf("%d spare blocks are lent, %d are kept", b.lent, len(b.free))
		}
	})
}
