// Package eventlog reads, replays, describes and writes the logs that firmware
// and guests keep of what they measured: TCG logs of a TPM, the CCEL of a
// confidential guest, and the AAEL, its runtime events.
//
// A log proves nothing by itself. It explains a register that hardware vouches
// for: [Log.Replay] computes the registers that the log leads to, and only
// where they are equal to the quoted ones did these digests happen in this
// order. Even then the data of an event is a label that anyone could have
// written, unless [Event.DigestMatches] holds.
//
// Sources: TCG PC Client Platform Firmware Profile (section 10), UEFI 2.11
// section 38, kbs-protocol 17, guest-protocol 6.
package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/fields"
)

// Limits on logs from foreign hands. Firmware reserves 64 kB; runtime events
// come on top.
const (
	MaxSize   = 8 << 20 // bytes of a log
	MaxEvents = 1 << 17
	// maxAlgorithms is how many banks a header may declare, and how many
	// digests an event may have.
	maxAlgorithms = 16
)

// ErrTruncated is returned for a log that ends in the middle of a record.
var ErrTruncated = errors.New("the event log ends in the middle of a record")

// Event is one record: what was extended into which register.
type Event struct {
	Index   int // PCR, or MR index of a CCEL, where RTMR n is n + 1
	Type    EventType
	Digests map[Algorithm][]byte
	Data    []byte
}

// Bank is an algorithm that the header of a log declares.
type Bank struct {
	Algorithm Algorithm
	Size      int // of a digest in bytes
}

// Header is the first record of a crypto-agile log (TCG_EfiSpecIDEvent). It is
// not an event: nothing was extended.
type Header struct {
	Index         int // 0 in the log of a TPM, 1 in a CCEL
	Signature     [16]byte
	PlatformClass uint32
	Minor, Major  uint8 // of the specification
	Errata        uint8
	UintnSize     uint8 // 2 for 64 bits
	Banks         []Bank
	VendorInfo    []byte
}

// Log is a parsed event log.
type Log struct {
	// Header is nil for a log of the TPM 1.2 form, which knows SHA-1 only.
	Header *Header
	Events []Event
	// Size is how many bytes were read. What follows is an end marker and
	// unused space.
	Size int
}

const (
	specID       = "Spec ID Event03\x00"
	headerFixed  = 28 // bytes before the list of banks
	legacyDigest = 20
)

// Parse reads a log: crypto-agile with its header, as TPM 2.0 firmware, CCEL
// and the attestation agent write it (kbs-protocol 17), or of the TPM 1.2
// form. It ends at eight bytes of zeros or of ones, or with the input. It
// judges nothing but the form.
func Parse(raw []byte) (*Log, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("the event log has %d bytes, at most %d are allowed", len(raw), MaxSize)
	}
	r := newReader(bytes.Clone(raw))
	first := r.legacy()
	if r.Err != nil {
		return nil, fmt.Errorf("event log: header: %w", r.Err)
	}
	l := new(Log)
	if isHeader(first) {
		h, err := parseHeader(first)
		if err != nil {
			return nil, fmt.Errorf("event log: header: %w", err)
		}
		l.Header = h
	} else {
		r.At = 0
	}
	if err := l.read(r); err != nil {
		return nil, err
	}
	if l.Header == nil && len(l.Events) == 0 {
		return nil, errors.New("the event log has neither a header nor an event")
	}
	return l, nil
}

// read reads records until the end of the log.
func (l *Log) read(r *reader) error {
	sizes := l.sizes()
	for !r.ended() {
		if len(l.Events) == MaxEvents {
			return fmt.Errorf("the event log has more than %d events", MaxEvents)
		}
		var e Event
		if l.Header == nil {
			e = r.legacy()
		} else {
			e = r.agile(sizes)
		}
		if r.Err != nil {
			return fmt.Errorf("event log: event %d: %w", len(l.Events), r.Err)
		}
		l.Events = append(l.Events, e)
	}
	l.Size = r.At
	return r.Err
}

// sizes returns the length of the digests of all algorithms that a record may
// name: those that are known anyway, and those that the header declares.
func (l *Log) sizes() map[Algorithm]int {
	sizes := map[Algorithm]int{}
	for _, a := range []Algorithm{SHA1, SHA256, SHA384, SHA512, SM3} {
		sizes[a] = a.Size()
	}
	if l.Header != nil {
		for _, b := range l.Header.Banks {
			sizes[b.Algorithm] = b.Size
		}
	}
	return sizes
}

// isHeader tells a header from the first event of an old log. The agent's own
// header has zeros in place of the signature (guest-protocol 6.5).
func isHeader(e Event) bool {
	if e.Type != NoAction || len(e.Data) < headerFixed {
		return false
	}
	s := e.Data[:len(specID)]
	return string(s) == specID || bytes.Equal(s, make([]byte, len(specID)))
}

func parseHeader(e Event) (*Header, error) {
	h := &Header{
		Index: e.Index, Signature: [16]byte(e.Data), PlatformClass: binary.LittleEndian.Uint32(e.Data[16:]),
		Minor: e.Data[20], Major: e.Data[21], Errata: e.Data[22], UintnSize: e.Data[23],
	}
	if !bytes.Equal(e.Digests[SHA1], make([]byte, legacyDigest)) {
		return nil, errors.New("its digest is not zero")
	}
	r := newReader(e.Data)
	r.At = 24
	count := r.U32()
	if count == 0 || count > maxAlgorithms {
		return nil, fmt.Errorf("%d digest algorithms, want 1 to %d", count, maxAlgorithms)
	}
	seen := map[Algorithm]bool{}
	for range count {
		b := Bank{Algorithm: Algorithm(r.U16()), Size: int(r.U16())}
		known := b.Algorithm.Size()
		if r.Err == nil && (seen[b.Algorithm] || known != 0 && b.Size != known || b.Size == 0 || b.Size > 64) {
			return nil, fmt.Errorf("%s with digests of %d bytes is declared wrongly or twice", b.Algorithm, b.Size)
		}
		seen[b.Algorithm] = true
		h.Banks = append(h.Banks, b)
	}
	h.VendorInfo = r.Take(int(r.U8()))
	if r.Err != nil {
		return nil, r.Err
	}
	if r.At != len(e.Data) {
		return nil, errors.New("data after its end")
	}
	return h, nil
}

// reader takes fields from a log.
type reader struct{ fields.Reader }

func newReader(raw []byte) *reader {
	return &reader{fields.Reader{Buf: raw, Truncated: ErrTruncated}}
}

// ended reports whether no record follows: at the end of the input, or at
// eight bytes of zeros or ones. Fewer bytes are allowed as padding only.
func (r *reader) ended() bool {
	rest := r.Buf[r.At:]
	if len(rest) >= 8 {
		n := binary.LittleEndian.Uint64(rest)
		return n == 0 || n == math.MaxUint64
	}
	if len(rest) > 0 && !bytes.Equal(rest, make([]byte, len(rest))) && !bytes.Equal(rest, bytes.Repeat([]byte{0xff}, len(rest))) {
		r.Err = ErrTruncated
	}
	return true
}

// legacy reads a TCG_PCR_EVENT.
func (r *reader) legacy() Event {
	e := Event{Index: int(r.U32()), Type: EventType(r.U32())}
	e.Digests = map[Algorithm][]byte{SHA1: r.Take(legacyDigest)}
	e.Data = r.data()
	return e
}

// agile reads a TCG_PCR_EVENT2.
func (r *reader) agile(sizes map[Algorithm]int) Event {
	e := Event{Index: int(r.U32()), Type: EventType(r.U32())}
	count := r.U32()
	if count > maxAlgorithms && r.Err == nil {
		r.Err = fmt.Errorf("%d digests, at most %d are allowed", count, maxAlgorithms)
	}
	e.Digests = make(map[Algorithm][]byte, min(count, maxAlgorithms))
	for range count {
		a := Algorithm(r.U16())
		if r.Err != nil {
			return e
		}
		if sizes[a] == 0 {
			r.Err = fmt.Errorf("a digest of an unknown %s", a)
			return e
		}
		if _, twice := e.Digests[a]; twice {
			r.Err = fmt.Errorf("two digests of %s", a)
			return e
		}
		e.Digests[a] = r.Take(sizes[a])
	}
	e.Data = r.data()
	return e
}

// data reads the length of an event's data and the data.
func (r *reader) data() []byte {
	n := r.U32()
	if int64(n) > int64(len(r.Buf)-r.At) && r.Err == nil {
		r.Err = ErrTruncated
	}
	return r.Take(int(n))
}
