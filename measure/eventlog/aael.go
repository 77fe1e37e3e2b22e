package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// aaelID is the id of a tagged event of the attestation agent: "AAEL" as a
// number, so that its bytes read "LEAA".
const aaelID = 0x4141454c

// DefaultRuntimePCR is the PCR of runtime events unless told otherwise.
const DefaultRuntimePCR = 17

// RuntimeEvent is an event of the AAEL, the log of what happened in a guest
// after it booted (guest-protocol 6.1). Its text is
// "<domain> <operation> <content>".
type RuntimeEvent struct {
	Domain    string // printable, without white space
	Operation string // printable, without white space
	Content   string // printable, one line; often JSON
}

// Validate refuses what could not be told apart again when read: spaces in
// domain or operation, empty ones, and anything that is not printable.
func (r RuntimeEvent) Validate() error {
	for _, part := range []struct{ name, text string }{{"domain", r.Domain}, {"operation", r.Operation}} {
		if part.text == "" || strings.ContainsFunc(part.text, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) }) {
			return fmt.Errorf("the %s of a runtime event must be printable and without spaces", part.name)
		}
	}
	if !utf8.ValidString(r.Domain + r.Operation + r.Content) {
		return errors.New("a runtime event must be UTF-8")
	}
	if strings.ContainsFunc(r.Content, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return errors.New("the content of a runtime event must be printable and on one line")
	}
	return nil
}

// String returns the text of the event.
func (r RuntimeEvent) String() string { return r.Domain + " " + r.Operation + " " + r.Content }

// Data returns what is measured and logged: the tagged event with the text
// (guest-protocol 6.2).
func (r RuntimeEvent) Data() []byte {
	text := r.String()
	out := binary.LittleEndian.AppendUint32(nil, aaelID)
	out = binary.LittleEndian.AppendUint32(out, length(len(text)))
	return append(out, text...)
}

// Event returns the record for a register, with one digest. The index is that
// of the PCR on a TPM, and [MRIndex] of it in a CCEL.
func (r RuntimeEvent) Event(index int, a Algorithm) (Event, error) {
	if err := r.Validate(); err != nil {
		return Event{}, err
	}
	data := r.Data()
	digest := a.Sum(data)
	if digest == nil {
		return Event{}, fmt.Errorf("%s cannot be computed", a)
	}
	return Event{Index: index, Type: EventTag, Digests: map[Algorithm][]byte{a: digest}, Data: data}, nil
}

// Runtime returns the event as one of the AAEL, if it is one. It says nothing
// of its truth: see [Event.DigestMatches]. The text is split at the first two
// spaces, as every verifier does.
func (e Event) Runtime() (RuntimeEvent, bool) {
	id, text, ok := e.tagged()
	if !ok || id != aaelID || !utf8.Valid(text) {
		return RuntimeEvent{}, false
	}
	parts := strings.SplitN(string(text), " ", 3)
	if len(parts) != 3 {
		return RuntimeEvent{}, false
	}
	return RuntimeEvent{Domain: parts[0], Operation: parts[1], Content: parts[2]}, true
}

// tagged takes a TCG_PCClientTaggedEvent apart.
func (e Event) tagged() (id uint32, data []byte, ok bool) {
	if e.Type != EventTag || len(e.Data) < 8 {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint32(e.Data[4:])
	if uint64(n) != uint64(len(e.Data)-8) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint32(e.Data), e.Data[8:], true
}

// MRIndex returns the index in a CCEL of the register that stands for a PCR
// (UEFI 2.11 section 38.4.1). RTMR n has index n + 1; 0 is never returned,
// because the launch measurement cannot be extended.
func MRIndex(pcr int) int {
	switch {
	case pcr == 1 || pcr == 7:
		return 1
	case pcr >= 2 && pcr <= 6:
		return 2
	case pcr >= 8 && pcr <= 15:
		return 3
	}
	return 4
}

// ParseRuntime reads the file of runtime events that the attestation agent
// keeps: records without a header, and without an end marker.
func ParseRuntime(raw []byte) ([]Event, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("the runtime log has %d bytes, at most %d are allowed", len(raw), MaxSize)
	}
	l := &Log{Header: new(Header)}
	if err := l.read(newReader(bytes.Clone(raw))); err != nil {
		return nil, err
	}
	if l.Size != len(raw) {
		return nil, fmt.Errorf("the runtime log has an end marker at byte %d", l.Size)
	}
	return l.Events, nil
}

// Combine puts together the cc_eventlog of evidence: the firmware's log up to
// its end, the runtime events, and an end marker (guest-protocol 6.5). Where
// the firmware keeps no log, a header that declares the algorithm and SM3
// comes first. Nothing at all gives nil.
func Combine(firmware, runtime []byte, a Algorithm) ([]byte, error) {
	if len(firmware) == 0 && len(runtime) == 0 {
		return nil, nil
	}
	if _, err := ParseRuntime(runtime); err != nil {
		return nil, err
	}
	if len(firmware) == 0 {
		h := &Header{Banks: []Bank{{a, a.Size()}, {SM3, SM3.Size()}}}
		return slices.Concat((&Log{Header: h}).Marshal(), runtime, []byte(EndMarker)), nil
	}
	l, err := Parse(firmware)
	if err != nil {
		return nil, err
	}
	if l.Header == nil && len(runtime) > 0 {
		return nil, errors.New("runtime events do not fit into a log of the TPM 1.2 form")
	}
	return slices.Concat(firmware[:l.Size], runtime, []byte(EndMarker)), nil
}
