// Package nvidia is NVIDIA's GPUs with confidential computing: what their
// attestation reports say, what they are worth, and GPUs to try it without any.
//
// A report is the transcript of one SPDM exchange (DSP0274 1.1): the request
// with a nonce, and the answer with up to 64 measurements, signed by a key of
// the GPU's firmware. A chain of certificates leads from that key through the
// GPU's own to NVIDIA's device identity authority. The device beside a CPU is
// bound to the same nonce and guest key as the CPU; it knows nothing of
// init-data.
//
// Everything is judged here, without asking NVIDIA's remote service. What that
// service knows and this package does not is named in the verdict: revocation,
// and the reference measurements unless they are given.
package nvidia

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of a report. Real ones have about four thousand bytes.
const (
	MaxReportSize   = 64 << 10
	maxMeasurements = 127
)

const (
	requestSize   = 37 // version, code, two parameters, nonce, slot
	responseHead  = 8
	nonceSize     = 32
	signatureSize = 96 // ECDSA on P-384: r and s, big endian
)

// SPDM codes (DSP0274 1.1, sections 10.11 and 8.2).
const (
	spdmVersion         = 0x11
	codeGetMeasurements = 0xe0
	codeMeasurements    = 0x60
	paramSigned         = 0x01 // bit of the request's first parameter
	paramAll            = 0xff // the request's second parameter
	specDMTF            = 0x01
)

// ErrReport is wrapped by every refusal to read a report.
var ErrReport = errors.New("malformed SPDM report")

// Report is a report taken apart, not believed yet.
type Report struct {
	Nonce        [nonceSize]byte // of the request: what the report is bound to
	Signed       bool            // the request asks for a signature
	All          bool            // and for all measurements
	Measurements map[int][]byte  // by index, from 1 on
	Opaque       map[FieldType][]byte
	Signature    [signatureSize]byte
	message      []byte // what is signed: request and answer
}

// reader cuts a message into pieces and remembers that it ended too early.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.short, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() int {
	if b := r.bytes(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (r *reader) u16() int {
	if b := r.bytes(2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (r *reader) u24() int { return r.u16() | r.u8()<<16 }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrReport, fmt.Errorf(format, args...))
}

// ParseReport reads a request and the answer to it. Bytes behind the signature
// are not looked at: drivers hand out a buffer, not a message.
func ParseReport(raw []byte) (*Report, error) {
	if len(raw) > MaxReportSize {
		return nil, malformed("%d bytes, at most %d are allowed", len(raw), MaxReportSize)
	}
	out := &Report{}
	r := &reader{rest: raw}
	version, code, param1, param2 := r.u8(), r.u8(), r.u8(), r.u8()
	copy(out.Nonce[:], r.bytes(nonceSize))
	r.u8() // slot
	if r.short || version != spdmVersion || code != codeGetMeasurements {
		return nil, malformed("no GET_MEASUREMENTS request of SPDM 1.1")
	}
	out.Signed, out.All = param1&paramSigned != 0, param2 == paramAll
	version, code = r.u8(), r.u8()
	r.bytes(2) // parameters
	if r.short || version != spdmVersion || code != codeMeasurements {
		return nil, malformed("no MEASUREMENTS answer of SPDM 1.1")
	}
	count, size := r.u8(), r.u24()
	record := r.bytes(size)
	r.bytes(nonceSize) // the answerer's
	opaque := r.bytes(r.u16())
	out.message = raw[:len(raw)-len(r.rest)]
	copy(out.Signature[:], r.bytes(signatureSize))
	if r.short {
		return nil, malformed("it ends too early")
	}
	var err error
	if out.Measurements, err = parseMeasurements(record, count); err != nil {
		return nil, err
	}
	out.Opaque, err = parseOpaque(opaque)
	return out, err
}

// parseMeasurements reads the measurement record: blocks with an index, each a
// value in DMTF's form.
func parseMeasurements(record []byte, count int) (map[int][]byte, error) {
	if count == 0 || count > maxMeasurements {
		return nil, malformed("%d measurements, want 1 to %d", count, maxMeasurements)
	}
	out := map[int][]byte{}
	for r := (&reader{rest: record}); len(r.rest) > 0; {
		index, spec := r.u8(), r.u8()
		block := &reader{rest: r.bytes(r.u16())}
		block.u8() // kind of measurement
		value := block.bytes(block.u16())
		if r.short || block.short || len(block.rest) != 0 || spec != specDMTF {
			return nil, malformed("measurement %d is not in DMTF's form", index)
		}
		if _, dup := out[index]; dup || index == 0 || len(value) == 0 || len(value) > 64 {
			return nil, malformed("measurement %d comes twice, or has %d bytes", index, len(value))
		}
		out[index] = value
	}
	if len(out) != count {
		return nil, malformed("%d measurements, and the head says %d", len(out), count)
	}
	return out, nil
}
