package inflate

import (
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// Fixed parts of a member (RFC 1952 2.3).
const (
	headerSize  = 10
	trailerSize = 8
	maxString   = 512 // bytes of a name or comment with its end, as compress/gzip has it

	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

// A Reader reads a gzip stream of any number of members. What it returns is not
// verified before io.EOF. It is for one goroutine.
type Reader struct {
	d    decoder
	sum  uint32 // CRC-32 of the member, then its header's
	size uint32 // bytes of the member so far
	err  error
}

// NewReader reads the first member's header. Errors are those of compress/gzip:
// gzip.ErrHeader, io.EOF where there is nothing at all, and those of r.
func NewReader(r io.Reader) (*Reader, error) {
	z := &Reader{d: decoder{src: r}}
	if err := z.header(); err != nil {
		return nil, err
	}
	return z, nil
}

// Read reads up to 128 KiB. Errors are those of compress/gzip:
// gzip.ErrChecksum, gzip.ErrHeader where no member follows on a member,
// flate.CorruptInputError, io.ErrUnexpectedEOF, and those of the source.
//
// It reads the source to its end, unless there is an error: then it has taken
// up to 64 KiB more than it needed to find that.
func (z *Reader) Read(p []byte) (int, error) {
	for {
		if out := z.d.pending(); len(out) > 0 {
			n := copy(p, out)
			z.d.out += n
			return n, nil
		}
		if z.err != nil {
			return 0, z.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if z.d.state == atEnd {
			z.err = z.nextMember()
			continue
		}
		z.err = z.d.more()
		out := z.d.pending()
		z.sum = crc32.Update(z.sum, crc32.IEEETable, out)
		z.size += uint32(len(out)) // of sizes the format has the lowest 32 bits
	}
}

// nextMember checks the end of a member and reads the header of the next one.
func (z *Reader) nextMember() error {
	sum, size := z.sum, z.size
	var b [trailerSize]byte
	if err := z.bytes(b[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b[:]) != sum || binary.LittleEndian.Uint32(b[4:]) != size {
		return gzip.ErrChecksum
	}
	return z.header()
}

// header reads a member's header. At the end of the source it returns io.EOF.
func (z *Reader) header() error {
	z.d.restart()
	z.sum, z.size = 0, 0
	if z.d.atSourceEnd() {
		return io.EOF
	}
	var b [headerSize]byte
	if err := z.bytes(b[:]); err != nil {
		return err
	}
	if b[0] != 0x1f || b[1] != 0x8b || b[2] != 8 {
		return gzip.ErrHeader
	}
	if err := z.options(b[3]); err != nil {
		return err
	}
	z.sum = 0
	return nil
}

// options skips what the flags say follows, and checks the header's CRC. The
// flags that are reserved are ignored, as everywhere.
func (z *Reader) options(flags byte) error {
	var b [2]byte
	if flags&flagExtra != 0 {
		if err := z.bytes(b[:]); err != nil {
			return err
		}
		for range binary.LittleEndian.Uint16(b[:]) {
			if err := z.bytes(b[:1]); err != nil {
				return err
			}
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag != 0 {
			if err := z.text(); err != nil {
				return err
			}
		}
	}
	if flags&flagHeaderCRC == 0 {
		return nil
	}
	sum := uint16(z.sum)
	if err := z.bytes(b[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(b[:]) != sum {
		return gzip.ErrHeader
	}
	return nil
}

// text skips a string that ends with a zero.
func (z *Reader) text() error {
	b := [1]byte{1}
	for range maxString {
		if err := z.bytes(b[:]); err != nil {
			return err
		}
		if b[0] == 0 {
			return nil
		}
	}
	return gzip.ErrHeader
}

// bytes takes the next bytes outside of streams and adds them to the sum.
func (z *Reader) bytes(b []byte) error {
	for i := range b {
		v, err := z.d.take(8)
		if err != nil {
			return err
		}
		b[i] = byte(v)
	}
	z.sum = crc32.Update(z.sum, crc32.IEEETable, b)
	return nil
}
