package boot

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// IMA is what decides about the first entry of the list of Linux's integrity
// measurement architecture, which goes into PCR 10.
type IMA struct {
	Template Template
	// Hash is CONFIG_IMA_DEFAULT_HASH.
	Hash eventlog.Algorithm
	// Modules are the algorithms that the kernel has as modules only: their
	// banks get the SHA-1 digest, filled up with zeros.
	Modules []eventlog.Algorithm
}

// Template is CONFIG_IMA_DEFAULT_TEMPLATE.
type Template string

// The templates of Linux, and none for a kernel without IMA.
const (
	NoIMA  Template = "none"
	IMANG  Template = "ima-ng"
	IMASig Template = "ima-sig"
)

// IMAPCR is the register of IMA's list.
const IMAPCR = 10

// events is what a kernel whose policy measures no file extends: a digest over
// PCRs 0 to 9 in one bank, in the form of a template, which is hashed by each
// bank's algorithm (Linux, security/integrity/ima). A policy that measures
// files adds more, in the order in which they are opened.
func (i IMA) events(before []Event) []Event {
	e := Event{PCR: IMAPCR, Type: eventlog.EventTag, Name: "IMA boot aggregate", Input: Kernel}
	switch i.Template {
	case NoIMA:
		return nil
	case IMANG, IMASig:
		var values []byte
		if values, e.Missing = i.covered(before); e.Missing == "" {
			e.Content = i.content(i.entry(i.Hash.Sum(values)))
		}
	default:
		e.Missing = "whether the kernel has IMA is not given"
	}
	return []Event{e}
}

func (i IMA) content(entry []byte) *Content {
	c := Bytes(entry)
	for _, alg := range i.Modules {
		padded := make([]byte, alg.Size())
		copy(padded, eventlog.SHA1.Sum(entry))
		c.sums[alg] = padded
	}
	return c
}

// covered returns the registers that the aggregate goes over, or says which is
// not known.
func (i IMA) covered(before []Event) (values []byte, missing string) {
	registers, err := Replay(before, i.Hash, func(pcr int) int { return pcr })
	if err != nil {
		return nil, err.Error()
	}
	last := 9
	if i.Hash == eventlog.SHA1 {
		last = 7
	}
	for pcr := range last + 1 {
		r, ok := registers[pcr]
		switch {
		case !ok:
			r.Value = eventlog.Initial(pcr, i.Hash)
		case r.Value == nil:
			return nil, fmt.Sprintf("PCR %d, over which IMA's boot aggregate goes, is not known", pcr)
		}
		values = append(values, r.Value...)
	}
	return values, ""
}

// entry is the data of the template.
func (i IMA) entry(aggregate []byte) []byte {
	name := strings.ToLower(strings.ReplaceAll(i.Hash.String(), "-", ""))
	out := field(append([]byte(name+":\x00"), aggregate...))
	out = append(out, field([]byte("boot_aggregate\x00"))...)
	if i.Template == IMASig {
		out = append(out, field(nil)...) // no signature
	}
	return out
}

func field(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}
