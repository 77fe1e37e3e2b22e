package dcap

import (
	"encoding/binary"
	"fmt"
)

// reader takes fields off the front of foreign bytes. After the first that is
// missing, err says which, and all others are empty.
type reader struct {
	rest []byte
	err  error
}

// take returns the next n bytes. They still belong to the input.
func (r *reader) take(what string, n int) []byte {
	if r.err == nil && len(r.rest) < n {
		r.err = fmt.Errorf("%s: %d bytes are missing", what, n-len(r.rest))
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// fill copies the next bytes into a field.
func (r *reader) fill(what string, field []byte) { copy(field, r.take(what, len(field))) }

func (r *reader) uint16(what string) uint16 {
	if b := r.take(what, 2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(what string) uint32 {
	if b := r.take(what, 4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// sized returns a field that the input says is n bytes long.
func (r *reader) sized(what string, n uint32) []byte {
	if r.err == nil && uint64(len(r.rest)) < uint64(n) {
		r.err = fmt.Errorf("%s: %d bytes are announced, %d are there", what, n, len(r.rest))
	}
	if r.err != nil {
		return nil
	}
	return r.take(what, int(n))
}

// end makes left-over bytes an error.
func (r *reader) end(what string) {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%s: %d bytes too many", what, len(r.rest))
	}
}
