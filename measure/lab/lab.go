// Package lab has a simulated guest of every platform, with two verifiers of
// its evidence: one that was told to trust the simulated root, and one that is
// configured as for production, with all else the same.
//
// It is for tests and for the generator of the reference pages: what holds for
// every platform (no simulated root satisfies a production configuration; the
// default policies read claims that really exist) is stated once, over labs.
// No program that judges evidence imports it.
package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// RootName is the name under which Trusting verifiers know the simulated root.
const RootName = "lab"

// The launch of every guest.
var (
	image       = bytes.Repeat([]byte("a simulated agent "), 1000)
	commandLine = "agent serve"
)

// Lab is a simulated guest, and who judges it.
type Lab struct {
	Platform measure.Platform
	Guest    measure.Attester
	// InitData is the digest of the init-data that the guest was started with;
	// nil for a platform that cannot be bound to one.
	InitData []byte
	// Trusting names the simulated root, and demands everything else: no check
	// is waived that the platform can pass.
	Trusting measure.Verifier
	// Production waives whatever can be waived, and names no simulated root. Nil
	// for the platforms that are nothing but a simulation (package sample).
	Production measure.Verifier
	// Smuggle configures a verifier with the simulated root as if it was a
	// genuine one. Nil where genuine roots are built in.
	Smuggle func() (measure.Verifier, error)
}

// room makes the lab of one platform in a directory.
type room struct {
	platform measure.Platform
	// initData is the length of a digest that the platform can be bound to.
	initData int
	open     func(l *Lab, vendor, guest string) error
}

func rooms() []room {
	return []room{
		{measure.SNP, 32, openSNP},
		{measure.TDX, 48, openTDX},
		{measure.SGX, 64, openSGX},
		{measure.AzSNPvTPM, 32, openAzure(openSNP)},
		{measure.AzTDXvTPM, 32, openAzure(openTDX)},
		{measure.TPM, 32, openTPM},
		{measure.CCA, 64, openCCA},
		{measure.NVIDIA, 0, openNVIDIA},
		{measure.Sample, 32, openSample},
		{measure.SampleDevice, 0, openSample},
	}
}

// Platforms lists the platforms of which there is a lab: all that are verified.
func Platforms() []measure.Platform {
	var out []measure.Platform
	for _, r := range rooms() {
		out = append(out, r.platform)
	}
	return out
}

// Open makes the lab of a platform in an empty directory.
func Open(p measure.Platform, dir string) (*Lab, error) {
	for _, r := range rooms() {
		if r.platform != p {
			continue
		}
		l := &Lab{Platform: p}
		if r.initData > 0 {
			sum := sha256.Sum256([]byte("init-data"))
			l.InitData = bytes.Repeat(sum[:], 2)[:r.initData]
		}
		if err := r.open(l, filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")); err != nil {
			return nil, fmt.Errorf("lab of %s: %w", p, err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("there is no lab of %q", p)
}

// Challenge is the digest that evidence is bound to.
func Challenge() []byte {
	sum := sha256.Sum256([]byte("a nonce and a key"))
	return bytes.Repeat(sum[:], 2)[:48] // as long as SHA-384
}

// Expected is what honest evidence over [Challenge] is bound to.
func (l *Lab) Expected() measure.Expected {
	want := measure.Expected{ReportData: measure.BoundTo(Challenge()), InitData: measure.NotPresented()}
	if l.InitData != nil {
		want.InitData = measure.BoundTo(l.InitData)
	}
	return want
}

// Evidence is that of the guest over [Challenge].
func (l *Lab) Evidence(ctx context.Context) (measure.Evidence, error) {
	return measure.EvidenceOver(ctx, l.Guest, Challenge())
}

// Verdicts are those of the trusting verifier on honest evidence.
func (l *Lab) Verdicts(ctx context.Context) ([]measure.Verdict, error) {
	ev, err := l.Evidence(ctx)
	if err != nil {
		return nil, err
	}
	return measure.VerifyAll(ctx, l.Trusting, ev, l.Expected())
}
