package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errTruncated = errors.New("it ends too early")

// reader takes big-endian fields, as TPMs write them. After an error it
// returns zeros.
type reader struct {
	buf []byte
	at  int
	err error
}

// take returns the next n bytes, nil for none.
func (r *reader) take(n int) []byte {
	if r.err != nil || n == 0 {
		return nil
	}
	if n < 0 || n > len(r.buf)-r.at {
		r.err = errTruncated
		return nil
	}
	r.at += n
	return r.buf[r.at-n : r.at : r.at]
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// sized reads a TPM2B: a length of two bytes and that many bytes.
func (r *reader) sized() []byte { return r.sizedUpTo(maxSized) }

func (r *reader) sizedUpTo(limit int) []byte {
	n := int(r.u16())
	if r.err == nil && n > limit {
		r.err = fmt.Errorf("a field of %d bytes, at most %d are allowed", n, limit)
	}
	return r.take(n)
}

func appendSized(out, b []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(b))) //nolint:gosec // callers hold to the limits of reading
	return append(out, b...)
}
