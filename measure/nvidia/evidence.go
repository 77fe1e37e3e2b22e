package nvidia

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Limits of evidence from the wire. A GPU's has about 12 kB; a host has at most
// eight GPUs and four switches.
const (
	MaxEvidenceSize = 4 << 20 // bytes of JSON
	maxDevices      = 32
	maxText         = 256
)

// Device is the evidence of one GPU as it came.
type Device struct {
	Arch        Arch
	UUID        string // whatever the guest says; "unknown" if it says nothing
	Report      []byte
	Certificate []byte // chain in PEM, the signing certificate first
}

// wireDevice is one entry of device_evidence_list (kbs-protocol 16.8).
type wireDevice struct {
	Arch        string `json:"arch"`
	UUID        string `json:"uuid,omitempty"`
	Evidence    string `json:"evidence"`
	Certificate string `json:"certificate"`
}

type wireEvidence struct {
	Devices []wireDevice `json:"device_evidence_list"`
}

// ParseEvidence reads the wire form of kbs-protocol 16.8. Reports and
// certificates stay as they are.
func ParseEvidence(ev measure.Evidence) ([]Device, error) {
	if ev.Platform != measure.NVIDIA {
		return nil, fmt.Errorf("evidence of platform %q given to the NVIDIA parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("NVIDIA evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	var w wireEvidence
	if err := strictjson.Decode(ev.Data, &w); err != nil {
		return nil, fmt.Errorf("NVIDIA evidence: %w", err)
	}
	if len(w.Devices) == 0 || len(w.Devices) > maxDevices {
		return nil, fmt.Errorf("NVIDIA evidence: %d devices, want 1 to %d", len(w.Devices), maxDevices)
	}
	out := make([]Device, len(w.Devices))
	for i, d := range w.Devices {
		if len(d.Arch) > maxText || len(d.UUID) > maxText {
			return nil, fmt.Errorf("NVIDIA evidence: device %d: arch or uuid is longer than %d bytes", i, maxText)
		}
		out[i] = Device{Arch: Arch(strings.ToUpper(d.Arch)), UUID: d.UUID}
		if d.UUID == "" {
			out[i].UUID = "unknown"
		}
		var errReport, errChain error
		out[i].Report, errReport = parseBytes(d.Evidence)
		out[i].Certificate, errChain = base64.StdEncoding.Strict().DecodeString(d.Certificate)
		if err := errors.Join(errReport, errChain); err != nil {
			return nil, fmt.Errorf("NVIDIA evidence: device %d: %w", i, err)
		}
	}
	return out, nil
}

// parseBytes reads a report in base64, or in the hex of older guests. A report
// starts with the bytes 11 e0, so the two cannot be confused.
func parseBytes(s string) ([]byte, error) {
	if strings.HasPrefix(strings.ToLower(s), "11e0") {
		return hex.DecodeString(s)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// Wire returns the evidence of GPUs in the form that ParseEvidence reads.
func Wire(devices ...Device) (measure.Evidence, error) {
	w := wireEvidence{}
	for _, d := range devices {
		w.Devices = append(w.Devices, wireDevice{
			Arch: string(d.Arch), UUID: d.UUID,
			Evidence:    base64.StdEncoding.EncodeToString(d.Report),
			Certificate: base64.StdEncoding.EncodeToString(d.Certificate),
		})
	}
	data, err := json.Marshal(w)
	return measure.Evidence{Platform: measure.NVIDIA, Data: data}, err
}
