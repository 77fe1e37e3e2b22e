package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/fields"
)

var errTruncated = errors.New("it ends too early")

// reader takes fields as TPMs write them.
type reader struct{ fields.Reader }

func newReader(raw []byte) *reader {
	return &reader{fields.Reader{Buf: raw, Big: true, Truncated: errTruncated}}
}

// sized reads a TPM2B: a length of two bytes and that many bytes.
func (r *reader) sized() []byte { return r.sizedUpTo(maxSized) }

func (r *reader) sizedUpTo(limit int) []byte {
	n := int(r.U16())
	if r.Err == nil && n > limit {
		r.Err = fmt.Errorf("a field of %d bytes, at most %d are allowed", n, limit)
	}
	return r.Take(n)
}

func appendSized(out, b []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(b))) //nolint:gosec // callers hold to the limits of reading
	return append(out, b...)
}
