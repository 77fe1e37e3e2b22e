// Package tpm is the room of the TPM 2.0: quotes, their verification, and a
// simulated manufacturer with TPMs whose quotes differ from real ones only in
// who vouches for the key.
//
// A quote is worth what its key is worth. The evidence of the field carries
// the attestation key (AK) itself, and anyone can make a key; so none is
// trusted because it came along. Package tpm trusts an AK for one of two
// reasons, see [VerifierConfig]: it was enrolled, or a CA that the
// configuration names has certified it. See docs/adr/0018 for what lies
// between a TPM's endorsement key and an AK, and why one round trip cannot
// prove it.
//
// Package azure builds on the parts of this one: the quote of a vTPM is the
// same, only the key is vouched for by the hardware report.
//
// Sources: TPM 2.0 Library, Part 2 (structures), kbs-protocol 16.6,
// guest-protocol 4.12.
package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// PCRs is how many PCRs a TPM of a PC has.
const PCRs = 24

const (
	generatedValue = 0xff544347 // TPM_GENERATED_VALUE
	attestQuote    = 0x8018     // TPM_ST_ATTEST_QUOTE
	maxBanks       = 16
	maxSelect      = 8   // bytes of a bitmap; real ones have 3
	maxSized       = 128 // bytes of a name, of extra data, of a digest
)

// Clock is a TPMS_CLOCK_INFO: how long the TPM runs, and how often it was
// reset. A verifier that remembers them notices a reboot.
type Clock struct {
	Milliseconds uint64
	Resets       uint32
	Restarts     uint32
	Safe         bool // no higher value was ever reported
}

// Selection names PCRs of one bank.
type Selection struct {
	Bank   eventlog.Algorithm
	Bitmap []byte // PCR n is bit n%8 of byte n/8
}

// Quote is a TPMS_ATTEST of a quote: what the TPM signs.
type Quote struct {
	Signer    []byte // qualified name of the key
	ExtraData []byte // what the caller bound the quote to
	Clock     Clock
	Firmware  uint64 // the vendor's version of the TPM's firmware
	Selection []Selection
	Digest    []byte // of the selected PCRs' values, one after the other
}

// ErrNotQuote is returned for a signed statement of a TPM that is no quote, or
// that no TPM made.
var ErrNotQuote = errors.New("this is not a quote made by a TPM")

// ParseQuote reads a TPMS_ATTEST. It accepts quotes only and no trailing bytes,
// so an accepted quote marshals to the same bytes. It judges nothing.
func ParseQuote(raw []byte) (*Quote, error) {
	r := newReader(raw)
	if r.U32() != generatedValue || r.U16() != attestQuote {
		return nil, ErrNotQuote
	}
	q := &Quote{Signer: r.sized(), ExtraData: r.sized()}
	q.Clock = Clock{Milliseconds: r.U64(), Resets: r.U32(), Restarts: r.U32()}
	safe := r.U8()
	q.Clock.Safe = safe == 1
	if safe > 1 {
		return nil, errors.New("TPM quote: the clock's safe flag is neither yes nor no")
	}
	q.Firmware = r.U64()
	count := r.U32()
	if count > maxBanks {
		return nil, fmt.Errorf("TPM quote: PCRs of %d banks, at most %d are allowed", count, maxBanks)
	}
	for range count {
		s := Selection{Bank: eventlog.Algorithm(r.U16())}
		size := int(r.U8())
		if size > maxSelect {
			return nil, fmt.Errorf("TPM quote: a selection of %d bytes, at most %d are allowed", size, maxSelect)
		}
		s.Bitmap = r.Take(size)
		q.Selection = append(q.Selection, s)
	}
	q.Digest = r.sized()
	if r.Err == nil && r.At != len(raw) {
		r.Err = errors.New("bytes after its end")
	}
	if r.Err != nil {
		return nil, fmt.Errorf("TPM quote: %w", r.Err)
	}
	return q, nil
}

// Marshal returns the bytes that a TPM signs.
func (q *Quote) Marshal() []byte {
	out := binary.BigEndian.AppendUint32(nil, generatedValue)
	out = binary.BigEndian.AppendUint16(out, attestQuote)
	out = appendSized(out, q.Signer)
	out = appendSized(out, q.ExtraData)
	out = binary.BigEndian.AppendUint64(out, q.Clock.Milliseconds)
	out = binary.BigEndian.AppendUint32(out, q.Clock.Resets)
	out = binary.BigEndian.AppendUint32(out, q.Clock.Restarts)
	if q.Clock.Safe {
		out = append(out, 1)
	} else {
		out = append(out, 0)
	}
	out = binary.BigEndian.AppendUint64(out, q.Firmware)
	out = binary.BigEndian.AppendUint32(out, uint32(len(q.Selection))) //nolint:gosec // at most maxBanks
	for _, s := range q.Selection {
		out = binary.BigEndian.AppendUint16(out, uint16(s.Bank))
		out = append(out, uint8(len(s.Bitmap))) //nolint:gosec // at most maxSelect
		out = append(out, s.Bitmap...)
	}
	return appendSized(out, q.Digest)
}

// AllPCRs selects the PCRs 0 to 23 of a bank, as every attester of the field
// does.
func AllPCRs(bank eventlog.Algorithm) Selection {
	return Selection{Bank: bank, Bitmap: []byte{0xff, 0xff, 0xff}}
}

// whole is the selection that evidence of the field quotes, which is most, so
// it is spelled once.
var whole = struct {
	selection Selection
	text      string
}{AllPCRs(Bank), AllPCRs(Bank).String()}

func isWhole(all []Selection) bool { return len(all) == 1 && all[0].Equal(whole.selection) }

// Count returns how many PCRs are selected.
func (s Selection) Count() int {
	n := 0
	for _, b := range s.Bitmap {
		n += bits.OnesCount8(b)
	}
	return n
}

// String returns for example "SHA-256:0-15,23".
func (s Selection) String() string {
	selected := func(n int) bool { return n < 8*len(s.Bitmap) && s.Bitmap[n/8]>>(n%8)&1 == 1 }
	var runs []string
	for n := 0; n < 8*len(s.Bitmap); n++ {
		if !selected(n) {
			continue
		}
		first := n
		for selected(n + 1) {
			n++
		}
		run := strconv.Itoa(first)
		if n > first {
			run += "-" + strconv.Itoa(n)
		}
		runs = append(runs, run)
	}
	if runs == nil {
		runs = []string{"none"}
	}
	return s.Bank.String() + ":" + strings.Join(runs, ",")
}

// Equal reports whether both name the same PCRs.
func (s Selection) Equal(o Selection) bool {
	return s.Bank == o.Bank && bytes.Equal(bytes.TrimRight(s.Bitmap, "\x00"), bytes.TrimRight(o.Bitmap, "\x00"))
}

// describeSelection spells the whole list of a quote.
func describeSelection(all []Selection) string {
	if isWhole(all) {
		return whole.text
	}
	if len(all) == 0 {
		return "nothing"
	}
	text := make([]string, len(all))
	for i, s := range all {
		text[i] = s.String()
	}
	return strings.Join(text, " and ")
}
