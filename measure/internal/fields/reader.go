// Package fields takes numbers and byte strings off the front of foreign bytes,
// for the formats that count in one byte order throughout. The first field that
// is missing ends the reading: what comes after it is zero, so that a parser
// looks for an error once, at its end.
package fields

import "encoding/binary"

// Reader reads Buf from At on. After an error it returns zeros.
type Reader struct {
	Buf []byte
	At  int
	Err error
	// Big says that numbers are big-endian, as TPMs write them. Otherwise they
	// are little-endian.
	Big bool
	// Truncated becomes Err where a field is missing. It must be set.
	Truncated error
}

// Take returns the next n bytes, nil for none. They still belong to the input.
func (r *Reader) Take(n int) []byte {
	if r.Err != nil || n == 0 {
		return nil
	}
	if n < 0 || n > len(r.Buf)-r.At {
		r.Err = r.Truncated
		return nil
	}
	r.At += n
	return r.Buf[r.At-n : r.At : r.At]
}

// U8 reads a byte.
func (r *Reader) U8() uint8 {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 reads a number of two bytes.
func (r *Reader) U16() uint16 {
	b := r.Take(2)
	switch {
	case b == nil:
		return 0
	case r.Big:
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

// U32 reads a number of four bytes.
func (r *Reader) U32() uint32 {
	b := r.Take(4)
	switch {
	case b == nil:
		return 0
	case r.Big:
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// U64 reads a number of eight bytes.
func (r *Reader) U64() uint64 {
	b := r.Take(8)
	switch {
	case b == nil:
		return 0
	case r.Big:
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}
