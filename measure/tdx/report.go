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

// fixed10 is a report without what TDX 1.5 adds, in the order of its bytes.
type fixed10 struct {
	TEETCBSVN                                [16]byte
	MRSEAM, MRSignerSEAM                     Register
	SEAMAttributes                           [8]byte
	Attributes                               Attributes
	XFAM                                     uint64
	MRTD, MRConfigID, MROwner, MROwnerConfig Register
	RTMR                                     [4]Register
	ReportData                               [64]byte
}

// ParseReport reads a body of 584 bytes (TDX 1.0) or 648 bytes (TDX 1.5).
// Every body of these lengths parses, and encodes to the same bytes again.
func ParseReport(body []byte) (*Report, error) {
	var (
		f    fixed10
		more TDX15
		size = binary.Size(f)
	)
	if len(body) != size && len(body) != size+binary.Size(more) {
		return nil, fmt.Errorf("a TD report has %d or %d bytes, got %d", size, size+binary.Size(more), len(body))
	}
	if _, err := binary.Decode(body, binary.LittleEndian, &f); err != nil {
		return nil, fmt.Errorf("TD report: %w", err)
	}
	r := &Report{
		TEETCBSVN: f.TEETCBSVN, MRSEAM: f.MRSEAM, MRSignerSEAM: f.MRSignerSEAM, SEAMAttributes: f.SEAMAttributes,
		Attributes: f.Attributes, XFAM: f.XFAM, MRTD: f.MRTD, MRConfigID: f.MRConfigID, MROwner: f.MROwner,
		MROwnerConfig: f.MROwnerConfig, RTMR: f.RTMR, ReportData: f.ReportData,
	}
	if len(body) > size {
		if _, err := binary.Decode(body[size:], binary.LittleEndian, &more); err != nil {
			return nil, fmt.Errorf("TD report: %w", err)
		}
		r.TDX15 = &more
	}
	return r, nil
}

// Marshal returns the bytes of the body.
func (r *Report) Marshal() []byte {
	out, err := binary.Append(nil, binary.LittleEndian, fixed10{
		TEETCBSVN: r.TEETCBSVN, MRSEAM: r.MRSEAM, MRSignerSEAM: r.MRSignerSEAM, SEAMAttributes: r.SEAMAttributes,
		Attributes: r.Attributes, XFAM: r.XFAM, MRTD: r.MRTD, MRConfigID: r.MRConfigID, MROwner: r.MROwner,
		MROwnerConfig: r.MROwnerConfig, RTMR: r.RTMR, ReportData: r.ReportData,
	})
	if err == nil && r.TDX15 != nil {
		out, err = binary.Append(out, binary.LittleEndian, r.TDX15)
	}
	if err != nil {
		panic(err) // the structs have only fixed-size fields
	}
	return out
}

// module is what the report says of the TDX module beneath the TD.
func (r *Report) module() *dcap.Module {
	m := &dcap.Module{SVN: r.TEETCBSVN, Signer: r.MRSignerSEAM, Attributes: r.SEAMAttributes}
	if r.TDX15 != nil {
		m.Running = &r.TDX15.TEETCBSVN2
	}
	return m
}
