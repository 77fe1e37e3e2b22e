package eventlog

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// EndMarker ends the events of a log within a larger area, and those of a
// cc_eventlog in evidence (guest-protocol 6.5).
const EndMarker = "\xff\xff\xff\xff\xff\xff\xff\xff"

// New returns an empty log of a TPM with the given banks, in their order.
func New(banks ...Algorithm) (*Log, error) { return newLog(0, banks) }

// NewCCEL returns an empty log of a TDX guest, whose registers are SHA-384.
func NewCCEL() *Log {
	l, err := newLog(1, []Algorithm{SHA384})
	if err != nil {
		panic(err) // the bank is known
	}
	return l
}

func newLog(index int, banks []Algorithm) (*Log, error) {
	if len(banks) == 0 || len(banks) > maxAlgorithms {
		return nil, fmt.Errorf("a log of %d banks, want 1 to %d", len(banks), maxAlgorithms)
	}
	h := &Header{Index: index, Signature: [16]byte([]byte(specID)), Major: 2, UintnSize: 2}
	for i, a := range banks {
		if _, ok := a.Hash(); !ok || slices.Contains(banks[:i], a) {
			return nil, fmt.Errorf("a log with %s cannot be made, or has it twice", a)
		}
		h.Banks = append(h.Banks, Bank{Algorithm: a, Size: a.Size()})
	}
	return &Log{Header: h}, nil
}

// Add appends an event: what was measured, and the data that the log keeps
// about it. For many types they are the same.
func (l *Log) Add(index int, t EventType, data, measured []byte) {
	e := Event{Index: index, Type: t, Data: data, Digests: map[Algorithm][]byte{}}
	for _, a := range l.banks() {
		e.Digests[a] = a.Sum(measured)
	}
	l.Events = append(l.Events, e)
}

// AddStartupLocality appends the event that sets the initial value of PCR 0.
// It belongs before all others.
func (l *Log) AddStartupLocality(locality uint8) {
	e := Event{Type: NoAction, Data: append([]byte(startupLocality), locality), Digests: map[Algorithm][]byte{}}
	for _, a := range l.banks() {
		e.Digests[a] = make([]byte, a.Size())
	}
	l.Events = append(l.Events, e)
}

func (l *Log) banks() []Algorithm {
	if l.Header == nil {
		return []Algorithm{SHA1}
	}
	var out []Algorithm
	for _, b := range l.Header.Banks {
		out = append(out, b.Algorithm)
	}
	return out
}

// Marshal returns the log as firmware writes it, without an end marker. The
// digests of an event come in the order of the header, then by number.
func (l *Log) Marshal() []byte {
	var out []byte
	if l.Header == nil {
		for _, e := range l.Events {
			out = e.appendLegacy(out)
		}
		return out
	}
	out = Event{Index: l.Header.Index, Type: NoAction, Data: l.Header.marshal()}.appendLegacy(out)
	order := l.banks()
	for _, e := range l.Events {
		out = e.append(out, order)
	}
	return out
}

func (h *Header) marshal() []byte {
	out := append([]byte{}, h.Signature[:]...)
	out = binary.LittleEndian.AppendUint32(out, h.PlatformClass)
	out = append(out, h.Minor, h.Major, h.Errata, h.UintnSize)
	out = binary.LittleEndian.AppendUint32(out, length(len(h.Banks)))
	for _, b := range h.Banks {
		out = binary.LittleEndian.AppendUint16(out, uint16(b.Algorithm))
		out = binary.LittleEndian.AppendUint16(out, uint16(b.Size)) //nolint:gosec // at most 64
	}
	out = append(out, uint8(len(h.VendorInfo))) //nolint:gosec // its length was a byte when it was read
	return append(out, h.VendorInfo...)
}

// Marshal returns the event as one crypto-agile record (guest-protocol 6.2).
func (e Event) Marshal() []byte { return e.append(nil, nil) }

func (e Event) append(out []byte, order []Algorithm) []byte {
	out = binary.LittleEndian.AppendUint32(out, length(e.Index))
	out = binary.LittleEndian.AppendUint32(out, uint32(e.Type))
	out = binary.LittleEndian.AppendUint32(out, length(len(e.Digests)))
	rest := maps.Clone(e.Digests)
	for _, a := range slices.Concat(order, slices.Sorted(maps.Keys(e.Digests))) {
		if d, ok := rest[a]; ok {
			out = append(binary.LittleEndian.AppendUint16(out, uint16(a)), d...)
			delete(rest, a)
		}
	}
	out = binary.LittleEndian.AppendUint32(out, length(len(e.Data)))
	return append(out, e.Data...)
}

func (e Event) appendLegacy(out []byte) []byte {
	out = binary.LittleEndian.AppendUint32(out, length(e.Index))
	out = binary.LittleEndian.AppendUint32(out, uint32(e.Type))
	digest := make([]byte, legacyDigest)
	copy(digest, e.Digests[SHA1])
	out = append(out, digest...)
	out = binary.LittleEndian.AppendUint32(out, length(len(e.Data)))
	return append(out, e.Data...)
}

// length is the u32 of a count. Logs are far smaller than that; what a caller
// made up beyond it is cut to what cannot be parsed.
func length(n int) uint32 {
	if n < 0 || int64(n) > math.MaxUint32 {
		return math.MaxUint32
	}
	return uint32(n)
}
