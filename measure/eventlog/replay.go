package eventlog

import (
	"bytes"
	"fmt"
)

// Registers of a TPM. Those of a CCEL have the indices 0 to 4.
const (
	maxIndex = 23
	// The registers of the dynamic launch hold ones until one happens (TCG PC
	// Client Platform TPM Profile, section 4.6.2).
	firstDynamic = 17
	lastDynamic  = 22
)

const startupLocality = "StartupLocality\x00"

// Replay computes the registers that the log leads to in the bank of an
// algorithm, by index. A register that no event extends is absent. A register
// starts at zeros, PCR 0 with the locality that a StartupLocality event names,
// PCRs 17 to 22 at ones; EV_NO_ACTION extends nothing.
//
// An event without a digest of the algorithm is an error: its bank is not in
// this log.
func (l *Log) Replay(a Algorithm) (map[int][]byte, error) {
	hash, ok := a.Hash()
	if !ok {
		return nil, fmt.Errorf("replay: %s cannot be computed", a)
	}
	registers := map[int][]byte{}
	start, err := l.locality(a.Size())
	if err != nil {
		return nil, err
	}
	for i, e := range l.Events {
		if e.Type == NoAction {
			continue
		}
		if e.Index < 0 || e.Index > maxIndex {
			return nil, fmt.Errorf("replay: event %d extends register %d, which does not exist", i, e.Index)
		}
		digest := e.Digests[a]
		if len(digest) != a.Size() {
			return nil, fmt.Errorf("replay: event %d (%s) has no %s digest", i, e.Type, a)
		}
		old, ok := registers[e.Index]
		switch {
		case ok:
		case e.Index == 0:
			old = start
		default:
			old = Initial(e.Index, a)
		}
		h := hash.New()
		h.Write(old)
		h.Write(digest)
		registers[e.Index] = h.Sum(nil)
	}
	return registers, nil
}

// Initial returns the value of a register after a reset, before any event. PCR
// 0 may differ by the locality of the start.
func Initial(index int, a Algorithm) []byte {
	b := make([]byte, a.Size())
	if index >= firstDynamic && index <= lastDynamic {
		for i := range b {
			b[i] = 0xff
		}
	}
	return b
}

// Extend returns what a register holds after an extension: the digest of the
// old value and of the digest. It is nil if the algorithm cannot be computed.
func Extend(a Algorithm, old, digest []byte) []byte { return a.Sum(old, digest) }

// locality returns the initial value of PCR 0. The one event that sets it must
// come before anything is extended into that register.
func (l *Log) locality(size int) ([]byte, error) {
	start := make([]byte, size)
	seen, extended := false, false
	for i, e := range l.Events {
		if e.Index != 0 {
			continue
		}
		if e.Type != NoAction {
			extended = true
			continue
		}
		rest, ok := bytes.CutPrefix(e.Data, []byte(startupLocality))
		if !ok {
			continue
		}
		if seen || extended || len(rest) != 1 || rest[0] != 0 && rest[0] != 3 && rest[0] != 4 {
			return nil, fmt.Errorf("replay: event %d is a StartupLocality out of place", i)
		}
		seen = true
		start[size-1] = rest[0]
	}
	return start, nil
}

// DigestMatches reports whether the event's digest in a bank is the digest of
// its data. Only then is the data of a replayed event authentic. It need not
// hold: the digest of, say, a kernel is that of the kernel.
func (e Event) DigestMatches(a Algorithm) bool {
	sum := a.Sum(e.Data)
	return sum != nil && bytes.Equal(sum, e.Digests[a])
}
