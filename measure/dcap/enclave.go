package dcap

import (
	"encoding/binary"
	"fmt"
)

// EnclaveReportSize is the length of an enclave report body in bytes.
const EnclaveReportSize = 384

// EnclaveReport is what the processor says about an SGX enclave (Intel SDM
// volume 3D, REPORT, without its MAC): the body of an SGX quote, and in every
// quote the report of the quoting enclave.
type EnclaveReport struct {
	CPUSVN       [16]byte
	MiscSelect   uint32
	Reserved1    [12]byte
	ISVExtProdID [16]byte
	Attributes   EnclaveAttributes
	MREnclave    [32]byte
	Reserved2    [32]byte
	MRSigner     [32]byte
	Reserved3    [32]byte
	ConfigID     [64]byte
	ISVProdID    uint16
	ISVSVN       uint16
	ConfigSVN    uint16
	Reserved4    [42]byte
	ISVFamilyID  [16]byte
	ReportData   [64]byte
}

// EnclaveAttributes are the flags of an enclave and the processor state that
// it saves (XFRM).
type EnclaveAttributes struct{ Flags, XFRM uint64 }

// The flags that say how far an enclave can be trusted.
const (
	FlagInit         = 1 << 0 // it was initialised; only then its measurement is final
	FlagDebug        = 1 << 1 // the host may read and write its memory
	FlagProvisionKey = 1 << 4 // it may have the provisioning key
	FlagTokenKey     = 1 << 5 // it may have the launch token key
)

// Debug reports whether the host may look into the enclave.
func (a EnclaveAttributes) Debug() bool { return a.Flags&FlagDebug != 0 }

// ParseEnclaveReport reads 384 bytes. Every report parses, and encodes to the
// same bytes again.
func ParseEnclaveReport(raw []byte) (*EnclaveReport, error) {
	if len(raw) != EnclaveReportSize {
		return nil, fmt.Errorf("an enclave report has %d bytes, got %d", EnclaveReportSize, len(raw))
	}
	var r EnclaveReport
	if _, err := binary.Decode(raw, binary.LittleEndian, &r); err != nil {
		return nil, fmt.Errorf("enclave report: %w", err)
	}
	return &r, nil
}

// Marshal returns the report's 384 bytes.
func (r *EnclaveReport) Marshal() []byte {
	out, err := binary.Append(make([]byte, 0, EnclaveReportSize), binary.LittleEndian, r)
	if err != nil {
		panic(err) // the struct has only fixed-size fields
	}
	return out
}
