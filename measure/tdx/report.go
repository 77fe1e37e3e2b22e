// Package tdx judges quotes of Intel TDX guests and simulates them.
//
// A quote is a TD report that the platform's quoting enclave signed. Package
// dcap judges the signature, the platform and its TCB; this package judges the
// TD: its attributes, what its report is bound to, and whether the event log
// that came along explains its run-time registers.
package tdx

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// Register is a measurement register: a SHA-384 digest.
type Register [48]byte

// Report is a TD report body as quotes carry it (Intel TDX DCAP Quoting
// Library API, appendix A.3.2; kbs-protocol 16.3).
type Report struct {
	TEETCBSVN      [16]byte // the TDX module under which the TD was launched
	MRSEAM         Register
	MRSignerSEAM   Register
	SEAMAttributes [8]byte
	Attributes     Attributes
	XFAM           uint64
	MRTD           Register // what the TD was made from
	MRConfigID     Register // set by the host: the init-data digest
	MROwner        Register
	MROwnerConfig  Register
	RTMR           [4]Register
	ReportData     [64]byte

	// TDX15 is what TDX 1.5 adds; nil in TDX 1.0.
	TDX15 *TDX15
}

// TDX15 is the part of a report that only TDX 1.5 has.
type TDX15 struct {
	TEETCBSVN2  [16]byte // the TDX module that runs now
	MRServiceTD Register // of a service TD that is bound to this one
}

// Attributes are the TD's attributes (Intel TDX module ABI, ATTRIBUTES).
type Attributes uint64

// The attributes that are known by name.
const (
	AttrDebug         Attributes = 1 << 0  // the host may read and write the TD
	AttrSEPTVEDisable Attributes = 1 << 28 // the host cannot make the guest take a #VE
	AttrMigratable    Attributes = 1 << 29 // a migration TD may move it to another platform
	AttrPKS           Attributes = 1 << 30
	AttrKeyLocker     Attributes = 1 << 31
	AttrPerfmon       Attributes = 1 << 63

	// attrUntrusted are the TUD bits: with any of them the TD is not to be
	// trusted.
	attrUntrusted Attributes = 0xff
)

// Sizes of a body in bytes.
const (
	size10 = 584
	size15 = 648
)

// fields lists the fields of a body in the order of its bytes. The two numbers
// among them are given apart, little-endian.
func (r *Report) fields(attributes, xfam *[8]byte) [][]byte {
	out := [][]byte{
		r.TEETCBSVN[:], r.MRSEAM[:], r.MRSignerSEAM[:], r.SEAMAttributes[:], attributes[:], xfam[:],
		r.MRTD[:], r.MRConfigID[:], r.MROwner[:], r.MROwnerConfig[:],
		r.RTMR[0][:], r.RTMR[1][:], r.RTMR[2][:], r.RTMR[3][:], r.ReportData[:],
	}
	if r.TDX15 != nil {
		out = append(out, r.TDX15.TEETCBSVN2[:], r.TDX15.MRServiceTD[:])
	}
	return out
}

// ParseReport reads a body of 584 bytes (TDX 1.0) or 648 bytes (TDX 1.5).
// Every body of these lengths parses, and encodes to the same bytes again.
func ParseReport(body []byte) (*Report, error) {
	r := new(Report)
	switch len(body) {
	case size10:
	case size15:
		r.TDX15 = new(TDX15)
	default:
		return nil, fmt.Errorf("a TD report has %d or %d bytes, got %d", size10, size15, len(body))
	}
	var attributes, xfam [8]byte
	for _, f := range r.fields(&attributes, &xfam) {
		body = body[copy(f, body):]
	}
	r.Attributes = Attributes(binary.LittleEndian.Uint64(attributes[:]))
	r.XFAM = binary.LittleEndian.Uint64(xfam[:])
	return r, nil
}

// Marshal returns the bytes of the body.
func (r *Report) Marshal() []byte {
	var attributes, xfam [8]byte
	binary.LittleEndian.PutUint64(attributes[:], uint64(r.Attributes))
	binary.LittleEndian.PutUint64(xfam[:], r.XFAM)
	return slices.Concat(r.fields(&attributes, &xfam)...)
}

// module is what the report says of the TDX module beneath the TD.
func (r *Report) module() *dcap.Module {
	m := &dcap.Module{SVN: r.TEETCBSVN, Signer: r.MRSignerSEAM, Attributes: r.SEAMAttributes}
	if r.TDX15 != nil {
		m.Running = &r.TDX15.TEETCBSVN2
	}
	return m
}
