// Package azure is the room of Azure's confidential VMs: az-snp-vtpm and
// az-tdx-vtpm. There the guest does not speak to the hardware. A layer of
// Microsoft's below it, the HCL or paravisor, takes one hardware report at
// boot, gives the guest a TPM, and puts the TPM's attestation key (AK) into the
// data that the report is bound to.
//
// So evidence is a chain: the hardware's vendor signs the report, the report
// holds the digest of the runtime data, the runtime data hold the AK, the AK
// signs a quote over the guest's nonce and its PCRs. The measurement in the
// report is that of the paravisor; what the guest runs is in the PCRs. Trust
// in both needs trust in the paravisor: see docs/reference/platforms.md.
//
// Hardware reports are judged by the rooms of their platforms (packages snp
// and tdx), quotes by package tpm. Sources: kbs-protocol 16.5, guest-protocol
// 4.6 and 4.7.
package azure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// ReportType says which hardware made the report within an HCL report.
type ReportType uint32

// The hardware that has vTPMs.
const (
	ReportSNP ReportType = 2
	ReportTDX ReportType = 4
)

// String returns the name of the hardware.
func (t ReportType) String() string {
	switch t {
	case ReportSNP:
		return "SNP"
	case ReportTDX:
		return "TDX"
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Layout of an HCL report in bytes.
const (
	headerSize   = 32
	hardwareSize = 1184 // of the area for the hardware's report
	runtimeFixed = 20   // before the JSON of the runtime data
	maxHCL       = 64 << 10
	maxVersion   = 2 // of the header
)

const magic = "HCLA"

// HCLReport is what the paravisor puts into the TPM's NV memory. Integers are
// little endian.
type HCLReport struct {
	Version     uint32 // 1 or 2
	RequestType uint32
	Status      uint32
	Hardware    [hardwareSize]byte // an SNP report, or a TDREPORT and zeros
	Type        ReportType
	Hash        eventlog.Algorithm // that the hardware's report data is made with
	RuntimeData []byte             // JSON
	Padding     int                // zeros after the end
}

// hashTypes are the numbers of hash algorithms.
var hashTypes = map[uint32]eventlog.Algorithm{1: eventlog.SHA256, 2: eventlog.SHA384, 3: eventlog.SHA512}

// ParseHCL reads an HCL report. All lengths in it must agree, reserved fields
// and what follows must be zero, so an accepted report marshals to the same
// bytes. It judges nothing.
func ParseHCL(raw []byte) (*HCLReport, error) {
	if len(raw) < headerSize+hardwareSize+runtimeFixed || len(raw) > maxHCL {
		return nil, fmt.Errorf("an HCL report of %d bytes, want %d to %d", len(raw), headerSize+hardwareSize+runtimeFixed, maxHCL)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(raw[at:]) }
	if string(raw[:4]) != magic {
		return nil, fmt.Errorf("an HCL report starts with %q, want %q", raw[:4], magic)
	}
	const at = headerSize + hardwareSize
	h := &HCLReport{
		Version: u32(4), RequestType: u32(12), Status: u32(16), Hardware: [hardwareSize]byte(raw[headerSize:]),
		Type: ReportType(u32(at + 8)),
	}
	size, dataSize, varSize := u32(8), u32(at), u32(at+16)
	var ok bool
	h.Hash, ok = hashTypes[u32(at+12)]
	end := at + runtimeFixed + int64(varSize)
	switch {
	case h.Version == 0 || h.Version > maxVersion:
		return nil, fmt.Errorf("HCL report version %d is not known", h.Version)
	case !bytes.Equal(raw[20:32], make([]byte, 12)):
		return nil, errors.New("a reserved field of the HCL report is not zero")
	case h.Type != ReportSNP && h.Type != ReportTDX:
		return nil, fmt.Errorf("HCL report of a hardware of type %d, which is not known", h.Type)
	case u32(at+4) != 1:
		return nil, fmt.Errorf("version %d of the HCL report's runtime data is not known", u32(at+4))
	case !ok:
		return nil, fmt.Errorf("hash type %d of the HCL report is not known", u32(at+12))
	case end > int64(len(raw)) || int64(dataSize) != runtimeFixed+int64(varSize) || int64(size) != end:
		return nil, fmt.Errorf("the lengths %d, %d and %d in the HCL report do not agree", size, dataSize, varSize)
	case !bytes.Equal(raw[end:], make([]byte, int64(len(raw))-end)):
		return nil, errors.New("there are bytes after the HCL report")
	}
	h.RuntimeData = bytes.Clone(raw[at+runtimeFixed : end])
	h.Padding = len(raw) - int(end)
	return h, nil
}

// Marshal returns the bytes of the report.
func (h *HCLReport) Marshal() []byte {
	out := []byte(magic)
	put := func(values ...uint32) {
		for _, v := range values {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
	}
	var hash uint32
	for n, a := range hashTypes {
		if a == h.Hash {
			hash = n
		}
	}
	size := uint32(len(h.RuntimeData)) //nolint:gosec // far below 4 GB
	put(h.Version, headerSize+hardwareSize+runtimeFixed+size, h.RequestType, h.Status, 0, 0, 0)
	out = append(out, h.Hardware[:]...)
	put(runtimeFixed+size, 1, uint32(h.Type), hash, size)
	out = append(out, h.RuntimeData...)
	return append(out, make([]byte, h.Padding)...)
}

// Binding returns what the hardware's report data must start with: the digest
// of the runtime data.
func (h *HCLReport) Binding() []byte { return h.Hash.Sum(h.RuntimeData) }
