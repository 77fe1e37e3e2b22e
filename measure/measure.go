// Package measure is the vocabulary of evidence: what a platform says about
// itself, what is expected of it, and what that is worth.
//
// Terms follow RATS (RFC 9334). An [Attester] obtains [Evidence] in the guest;
// a [Verifier] turns it into a [Verdict], a list of named checks and the
// claims that policies read. One folder per platform implements both sides:
// see package snp. Nothing here knows of brokers or images.
package measure

import (
	"context"
	"encoding/json"
	"fmt"
)

// Platform names a kind of attester, in the spelling of the KBS protocol
// (kbs-protocol 3.8). The same word is the claim key in tokens.
type Platform string

// The platforms that this build knows.
const (
	SNP          Platform = "snp"
	TDX          Platform = "tdx"
	SGX          Platform = "sgx"
	AzSNPvTPM    Platform = "az-snp-vtpm"
	AzTDXvTPM    Platform = "az-tdx-vtpm"
	TPM          Platform = "tpm"
	CCA          Platform = "cca"
	NVIDIA       Platform = "nvidia"
	Sample       Platform = "sample"       // proves nothing: see package sample
	SampleDevice Platform = "sampledevice" // its device
)

// ReportData is the 64 bytes that hardware signs for the guest.
type ReportData [64]byte

// NewReportData places a digest at the start of a report data and fills up
// with zeros (kbs-protocol 3.5). More than 64 bytes are refused, never cut.
func NewReportData(digest []byte) (ReportData, error) {
	var d ReportData
	if len(digest) > len(d) {
		return d, fmt.Errorf("report data holds %d bytes, got %d", len(d), len(digest))
	}
	copy(d[:], digest)
	return d, nil
}

// Evidence is what an attester hands out: for most platforms the JSON value
// that the KBS protocol carries as primary_evidence (kbs-protocol 16).
type Evidence struct {
	Platform Platform
	Data     json.RawMessage
}

// An Attester obtains evidence about the environment it runs in.
type Attester interface {
	Platform() Platform
	// Evidence returns fresh evidence over the report data.
	Evidence(ctx context.Context, data ReportData) (Evidence, error)
}

// A DigestAttester is an Attester of a platform that carries a digest as it is,
// without filling it up to 64 bytes (kbs-protocol 3.5).
type DigestAttester interface {
	Attester
	// EvidenceOver returns fresh evidence over a digest of at most 64 bytes.
	EvidenceOver(ctx context.Context, digest []byte) (Evidence, error)
}

// EvidenceOver obtains evidence over a digest, as the attester's platform
// carries it.
func EvidenceOver(ctx context.Context, a Attester, digest []byte) (Evidence, error) {
	data, err := NewReportData(digest)
	if err != nil {
		return Evidence{}, err
	}
	if d, ok := a.(DigestAttester); ok {
		return d.EvidenceOver(ctx, digest)
	}
	return a.Evidence(ctx, data)
}

// A Verifier judges evidence of one platform. Implementations are safe for
// concurrent use.
type Verifier interface {
	Platform() Platform
	// Verify returns a verdict for every piece of evidence that can be parsed.
	// If any check failed the error is a *VerificationError that lists all
	// failures, and the verdict still tells what was seen.
	Verify(ctx context.Context, ev Evidence, want Expected) (Verdict, error)
}

// Registry finds the verifier of a platform. Platforms are registered at run
// time in main, so that a reader of main sees all that a binary accepts.
type Registry struct{ byPlatform map[Platform]Verifier }

// NewRegistry returns a registry of the given verifiers, at most one for each
// platform.
func NewRegistry(vs ...Verifier) (*Registry, error) {
	r := &Registry{byPlatform: make(map[Platform]Verifier, len(vs))}
	for _, v := range vs {
		if _, dup := r.byPlatform[v.Platform()]; dup {
			return nil, fmt.Errorf("two verifiers for platform %q", v.Platform())
		}
		r.byPlatform[v.Platform()] = v
	}
	return r, nil
}

// Verifier returns the verifier of a platform, if it is enabled.
func (r *Registry) Verifier(p Platform) (Verifier, bool) {
	v, ok := r.byPlatform[p]
	return v, ok
}
