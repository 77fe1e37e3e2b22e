package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

// headerSize is that of a frame's header: the length of the payload (4 bytes, the
// most significant first), the stream (4 bytes likewise), the kind and the flags.
const headerSize = 10

// Kinds of frames, and flags of requests (ttrpc, "Message Types").
const (
	kindRequest  = 1
	kindResponse = 2
	kindData     = 3

	flagRemoteClosed = 1 // no unary request, but nothing more comes from its sender
	flagRemoteOpen   = 2 // no unary request, and more comes
)

type header struct {
	length, stream uint32
	kind, flags    uint8
}

func parseHeader(p []byte) header {
	return header{binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), p[8], p[9]}
}

func (h header) put(p []byte) {
	binary.BigEndian.PutUint32(p, h.length)
	binary.BigEndian.PutUint32(p[4:], h.stream)
	p[8], p[9] = h.kind, h.flags
}

var (
	errReserved = errors.New("a message of more than 16 MiB was announced")
	errOversize = errors.New("a message of more than 4 MiB")
)

// source is a connection to read from.
type source interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}

// frameReader takes frames off a connection.
type frameReader struct {
	from    source
	in      *bufio.Reader
	pending int  // of in: the frame that was returned last
	hurried bool // a deadline is set
}

// readSize is the size of the buffer, which most requests fit into with room to
// spare.
const readSize = 8 << 10

func newFrameReader(from source) *frameReader {
	return &frameReader{from: from, in: bufio.NewReaderSize(from, readSize)}
}

// next waits for a frame. The payload is valid until the next call. After
// errOversize, which comes with the header, there may be another frame; after
// every other error there is none.
func (r *frameReader) next() (header, []byte, error) {
	if _, err := r.in.Discard(r.pending); err != nil {
		return header{}, nil, err
	}
	r.pending = 0
	if _, err := r.in.Peek(1); err != nil { // for as long as it takes
		return header{}, nil, err
	}
	defer r.calm()
	p, err := r.peek(headerSize)
	if err != nil {
		return header{}, nil, err
	}
	h := parseHeader(p)
	switch n := int64(h.length); {
	case n > maxDiscard:
		return h, nil, errReserved
	case n > maxMessage:
		r.hurry()
		if _, err := r.in.Discard(int(n) + headerSize); err != nil {
			return header{}, nil, err
		}
		return h, nil, errOversize
	case n > readSize-headerSize:
		p, err := r.large(int(n))
		return h, p, err
	}
	p, err = r.peek(headerSize + int(h.length))
	if err != nil {
		return header{}, nil, err
	}
	r.pending = len(p)
	return h, p[headerSize:], nil
}

func (r *frameReader) peek(n int) ([]byte, error) {
	if r.in.Buffered() < n {
		r.hurry()
	}
	p, err := r.in.Peek(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return p, err
}

// large reads a payload that the buffer has no room for. Its memory follows what
// has arrived, not what was announced.
func (r *frameReader) large(size int) ([]byte, error) {
	r.hurry()
	if _, err := r.in.Discard(headerSize); err != nil {
		return nil, err
	}
	var p []byte
	for len(p) < size {
		have := len(p)
		p = slices.Grow(p, min(size-have, max(have, 8*readSize)))
		p = p[:min(size, cap(p))]
		if _, err := io.ReadFull(r.in, p[have:]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// hurry bounds the time until the frame has arrived.
func (r *frameReader) hurry() {
	if !r.hurried {
		// What cannot be hurried is waited for.
		r.hurried = !errors.Is(r.from.SetReadDeadline(time.Now().Add(frameTimeout)), os.ErrNoDeadline)
	}
}

func (r *frameReader) calm() {
	if r.hurried {
		r.hurried = false
		_ = r.from.SetReadDeadline(time.Time{}) // a connection that is closed says so when it is read
	}
}
