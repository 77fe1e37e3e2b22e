package pull

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// What comes through is what the source gives, whatever the sizes of reads.
func TestReadAhead(t *testing.T) {
	long := make([]byte, 3*aheadBuffers*aheadSize+7)
	_, _ = rand.Read(long)
	for name, want := range map[string][]byte{"nothing": nil, "a little": []byte("abc"), "one buffer": long[:aheadSize], "more than all buffers": long} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "end with the last bytes": iotest.DataErrReader,
		} {
			a := readAhead(wrap(bytes.NewReader(want)))
			got, err := io.ReadAll(iotest.HalfReader(a))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d of %d bytes, %v", name, how, len(got), len(want), err)
			}
			a.close()
		}
	}
}

// An error comes after the bytes before it, and again.
func TestReadAheadErrors(t *testing.T) {
	broken := errors.New("broken")
	a := readAhead(io.MultiReader(bytes.NewReader(make([]byte, aheadSize+1)), iotest.ErrReader(broken)))
	defer a.close()
	got, err := io.ReadAll(a)
	if len(got) != aheadSize+1 || !errors.Is(err, broken) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, broken) {
		t.Errorf("then %v", err)
	}
}

// endless counts what is read from it.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	e.n += len(p)
	return len(p), nil
}

// It reads no further ahead than it has buffers, and stops when it is closed.
func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &endless{}
		a := readAhead(src)
		synctest.Wait()
		if want := aheadBuffers * aheadSize; src.n != want {
			t.Errorf("%d bytes were read before anybody asked, not %d", src.n, want)
		}
		if _, err := io.ReadFull(a, make([]byte, aheadSize+1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := (aheadBuffers + 1) * aheadSize; src.n != want {
			t.Errorf("%d bytes were read, not %d", src.n, want)
		}
		a.close()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, errClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}
