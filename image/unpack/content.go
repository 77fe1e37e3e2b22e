package unpack

import (
	"bytes"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

const (
	copyBuffer = 128 << 10

	// Zeros in blocks of this size become holes. A file that the archive
	// describes as sparse then stays sparse, and a small archive of a huge file
	// of nothing fills no disk; a file with short runs of zeros costs no system
	// call more.
	holeBlock = 64 << 10
)

var zeros [holeBlock]byte

// content writes a file's content to a new file and returns its length.
func (u *unpacker) content(fd int, r io.Reader) (int64, error) {
	var off, end int64 // read; written
	for {
		if err := u.src.stop(); err != nil { // a hole's zeros do not come through the source
			return off, err
		}
		n, rerr := fill(r, u.buf)
		for b := u.buf[:n]; len(b) > 0; {
			data, hole := untilHole(b)
			if err := writeAt(fd, data, off); err != nil {
				return off, err
			}
			if len(data) > 0 {
				end = off + int64(len(data))
			}
			off += int64(len(data) + hole)
			b = b[len(data)+hole:]
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return off, cut(rerr)
		}
	}
	if end < off {
		return off, unix.Ftruncate(fd, off)
	}
	return off, nil
}

// cut blames the archive for content that does not come, unless it was refused
// for something else.
func cut(err error) error {
	if _, ok := errors.AsType[*FormatError](err); ok {
		return err
	}
	return refuse("", "the archive is cut short: %w", err)
}

// fill reads until buf is full or r is at its end, so that writes are few and
// begin at multiples of the buffer.
func fill(r io.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		k, err := r.Read(buf[n:])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// untilHole splits off what lies before the first whole block of zeros, and
// says how many bytes of such blocks follow.
func untilHole(b []byte) (data []byte, hole int) {
	at := 0
	for len(b)-at >= holeBlock && !isZero(b[at:at+holeBlock]) {
		at += holeBlock
	}
	if len(b)-at < holeBlock {
		return b, 0
	}
	data = b[:at]
	for len(b)-at >= holeBlock && isZero(b[at:at+holeBlock]) {
		at += holeBlock
	}
	return data, at - len(data)
}

func isZero(block []byte) bool { return block[0] == 0 && bytes.Equal(block, zeros[:len(block)]) }

func writeAt(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
