// Package sample has the two platforms of the field that prove nothing:
// "sample" stands for a CPU, "sampledevice" for a device beside it. With them a
// broker can be tried without any hardware, and so can a guest that has two
// attesters.
//
// Anyone can write this evidence. It carries the digest that it was asked for,
// so that everything around it works as with hardware, and nothing signs it.
// Verdicts name a simulated root, which the default policies refuse.
package sample

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// RootName is that of the simulated root in verdicts.
const RootName = "sample"

// maxSVN bounds the version that the evidence claims, in bytes.
const maxSVN = 32

// evidence is the JSON form (kbs-protocol 16.1). The digest is in padded
// standard base64.
type evidence struct {
	SVN        string `json:"svn"`
	ReportData string `json:"report_data"`
}

// ErrEvidence is wrapped by every refusal to read evidence.
var ErrEvidence = errors.New("sample: malformed evidence")

func parse(raw json.RawMessage) (evidence, error) {
	var e evidence
	if err := strictjson.Decode(raw, &e); err != nil {
		return evidence{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if len(e.SVN) > maxSVN {
		return evidence{}, fmt.Errorf("%w: svn is longer than %d bytes", ErrEvidence, maxSVN)
	}
	digest, err := base64.StdEncoding.Strict().DecodeString(e.ReportData)
	if err != nil || base64.StdEncoding.EncodeToString(digest) != e.ReportData {
		return evidence{}, fmt.Errorf("%w: report_data is not base64", ErrEvidence)
	}
	if len(digest) == 0 || len(digest) > len(measure.ReportData{}) {
		return evidence{}, fmt.Errorf("%w: report_data has %d bytes", ErrEvidence, len(digest))
	}
	return e, nil
}

// kind is one of the two platforms.
type kind struct {
	platform   measure.Platform
	class, svn string
}

func kindOf(p measure.Platform) (kind, error) {
	switch p {
	case measure.Sample:
		return kind{p, "cpu", "1"}, nil
	case measure.SampleDevice:
		return kind{p, "gpu", "2"}, nil
	default:
		return kind{}, fmt.Errorf("sample: %q is not one of its platforms", p)
	}
}

// Attester writes sample evidence.
type Attester struct{ kind }

// NewAttester returns an attester of measure.Sample or measure.SampleDevice.
func NewAttester(p measure.Platform) (Attester, error) {
	k, err := kindOf(p)
	return Attester{k}, err
}

// Platform implements [measure.Attester].
func (a Attester) Platform() measure.Platform { return a.platform }

// Evidence implements [measure.Attester].
func (a Attester) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	return a.EvidenceOver(ctx, data[:])
}

// EvidenceOver implements [measure.DigestAttester].
func (a Attester) EvidenceOver(_ context.Context, digest []byte) (measure.Evidence, error) {
	raw, err := json.Marshal(evidence{SVN: a.svn, ReportData: base64.StdEncoding.EncodeToString(digest)})
	return measure.Evidence{Platform: a.platform, Data: raw}, err
}
