package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// maxOutput keeps what a fuzzer made up from expanding for long.
const maxOutput = 1 << 20

// raw reads a DEFLATE stream alone.
type raw struct {
	d   decoder
	err error
}

func newRaw(r io.Reader) io.Reader { return &raw{d: decoder{src: r}} }

func (r *raw) Read(p []byte) (int, error) {
	for len(r.d.pending()) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.d.state == atEnd {
			return 0, io.EOF
		}
		r.err = r.d.more()
	}
	n := copy(p, r.d.pending())
	r.d.out += n
	return n, nil
}

// kind sorts errors by what they say of the stream.
func kind(err error) string {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	switch {
	case err == nil:
		return "none"
	case corrupt:
		return "corrupt"
	default:
		return err.Error()
	}
}

func drain(r io.Reader, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxOutput))
}

// same fails unless what our reader makes of b is what the standard one does.
func same(t *testing.T, b []byte, wanted []byte, wantedErr error, seen []byte, seenErr error) {
	t.Helper()
	if kind(seenErr) != kind(wantedErr) {
		// The standard reader looks at a code only when as many bits are there as
		// the end of the block has, so of what was cut off it sees less.
		if !errors.Is(wantedErr, io.ErrUnexpectedEOF) || kind(seenErr) != "corrupt" {
			t.Fatalf("standard: %v, this: %v: %.200x", wantedErr, seenErr, b)
		}
	}
	if errors.Is(wantedErr, io.ErrUnexpectedEOF) && bytes.HasPrefix(seen, wanted) && len(seen) < len(wanted)+maxCode {
		return
	}
	if !bytes.Equal(seen, wanted) {
		t.Fatalf("standard: %d bytes, this: %d (%v, %v): %.200x", len(wanted), len(seen), wantedErr, seenErr, b)
	}
}

func compareGzip(t *testing.T, b []byte) error {
	t.Helper()
	wanted, wantedErr := drain(openStandard(b))
	seen, seenErr := drain(open(bytes.NewReader(b)))
	same(t, b, wanted, wantedErr, seen, seenErr)
	seen, seenErr = drain(open(iotest.OneByteReader(bytes.NewReader(b))))
	same(t, b, wanted, wantedErr, seen, seenErr)
	return seenErr
}

func compareRaw(t *testing.T, b []byte) error {
	t.Helper()
	wanted, wantedErr := drain(flate.NewReader(bytes.NewReader(b)), nil)
	seen, seenErr := drain(newRaw(bytes.NewReader(b)), nil)
	same(t, b, wanted, wantedErr, seen, seenErr)
	if len(b) > inputSize {
		return seenErr
	}
	seen, seenErr = drain(newRaw(iotest.OneByteReader(bytes.NewReader(b))), nil)
	same(t, b, wanted, wantedErr, seen, seenErr)
	return seenErr
}

func open(r io.Reader) (io.Reader, error)      { return NewReader(r) }
func openStandard(b []byte) (io.Reader, error) { return gzip.NewReader(bytes.NewReader(b)) }

// FuzzAgainstStandard holds the reader against compress/gzip: same output, same
// acceptance, same kind of error.
func FuzzAgainstStandard(f *testing.F) {
	for _, s := range streams(f) {
		f.Add(s.gzip())
	}
	f.Fuzz(func(t *testing.T, b []byte) { _ = compareGzip(t, b) })
}

// FuzzDeflateAgainstStandard does the same with compress/flate, where no checksum
// hides what is behind a mutation. The stream comes twice: at the start of the
// window, and after as many stored bytes as bring it to where the window slides.
func FuzzDeflateAgainstStandard(f *testing.F) {
	for _, s := range streams(f) {
		f.Add(s.deflate)
	}
	front := stored(bytes.Repeat([]byte("front"), 13107), false)
	front = append(front, front...)
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = compareRaw(t, b)
		_ = compareRaw(t, append(front[:len(front):len(front)], b...))
	})
}
