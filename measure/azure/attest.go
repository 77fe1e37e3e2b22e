package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// What the paravisor keeps in its vTPM (guest-protocol 4.6).
const (
	ReportIndex   = 0x01400001 // NV index of the HCL report
	UserDataIndex = 0x01400002 // NV index of what the guest wants in it, 64 bytes
	AKHandle      = 0x81000003
)

// A Chip is the vTPM of this guest: package tpmdev has the one behind a device
// node.
type Chip interface {
	tpm.Chip
	ReadNV(ctx context.Context, index uint32) ([]byte, error)
	WriteNV(ctx context.Context, index uint32, data []byte) error
}

// AttesterConfig says how to ask the paravisor below this guest.
type AttesterConfig struct {
	Platform measure.Platform // AzSNPvTPM or AzTDXvTPM
	Chip     Chip
	Metadata Metadata
	// Kernel has the firmware's event log; nil sends none.
	Kernel tsm.Kernel
	// RuntimeLog is sent with the firmware's log; nil for none.
	RuntimeLog *aael.Log
	// Wait pauses until the paravisor's report is looked at again; nil waits in
	// truth.
	Wait func(ctx context.Context, d time.Duration) error
}

// Attester obtains evidence of a guest under Azure's paravisor. It is safe for
// concurrent use: callers take turns, for there is one place for user data.
type Attester struct {
	cfg   AttesterConfig
	turn  chan struct{}
	certs vceks
}

// NewAttester returns an attester. It asks for nothing yet.
func NewAttester(cfg AttesterConfig) (*Attester, error) {
	switch {
	case cfg.Platform != measure.AzSNPvTPM && cfg.Platform != measure.AzTDXvTPM:
		return nil, fmt.Errorf("azure: %q is not one of its platforms", cfg.Platform)
	case cfg.Chip == nil:
		return nil, errors.New("azure: no vTPM to ask")
	}
	if cfg.Wait == nil {
		cfg.Wait = pause.For
	}
	return &Attester{cfg: cfg, turn: make(chan struct{}, 1)}, nil
}

// Platform implements [measure.Attester].
func (a *Attester) Platform() measure.Platform { return a.cfg.Platform }

// Evidence returns evidence over all 64 bytes of the report data. Verifiers of
// the KBS protocol want the digest alone: see [Attester.EvidenceOver].
func (a *Attester) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	return a.EvidenceOver(ctx, data[:])
}

// EvidenceOver returns evidence over a digest in version 2 of the wire form: the
// vTPM's quote is over it, and the hardware's report is as new and bound to it
// too, through the runtime data (kbs-protocol 3.5, 16.5).
func (a *Attester) EvidenceOver(ctx context.Context, digest []byte) (measure.Evidence, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return measure.Evidence{}, ctx.Err()
	}
	e, err := a.obtain(ctx, digest)
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("obtain %s evidence: %w", a.cfg.Platform, err)
	}
	return e.Wire()
}

func (a *Attester) obtain(ctx context.Context, digest []byte) (*Evidence, error) {
	if len(digest) == 0 {
		return nil, errors.New("nothing to bind the evidence to")
	}
	user, err := measure.NewReportData(digest)
	if err != nil {
		return nil, err
	}
	e := &Evidence{Platform: a.cfg.Platform, Version: LatestVersion}
	runtime, err := a.renew(ctx, e, user)
	if err != nil {
		return nil, err
	}
	if err := a.endorse(ctx, e); err != nil {
		return nil, err
	}
	var q tpm.Evidence
	if err := tpm.Obtain(ctx, a.cfg.Chip, AKHandle, digest, tpm.Logs{Kernel: a.cfg.Kernel, Runtime: a.cfg.RuntimeLog}, &q); err != nil {
		return nil, err
	}
	// A verifier would only refuse such a quote, with nobody here knowing why.
	if err := q.Signature.Verify(runtime.AK, q.Message); err != nil {
		return nil, fmt.Errorf("the key at %#x is not the one that the HCL report names: %w", AKHandle, err)
	}
	e.Message, e.Quote, e.Signature, e.PCRs, e.EventLog = q.Message, q.Quote, q.Signature.RSA, q.PCRs, q.EventLog
	return e, nil
}

// The paravisor notices by itself that the user data were written, and takes a
// moment to ask the hardware. The field waits three seconds, always.
const (
	renewPause    = 50 * time.Millisecond
	renewAttempts = 200
)

// renew has the paravisor make a report with the user data in it, and reads it
// into e.
func (a *Attester) renew(ctx context.Context, e *Evidence, user measure.ReportData) (*RuntimeData, error) {
	if err := a.cfg.Chip.WriteNV(ctx, UserDataIndex, user[:]); err != nil {
		return nil, fmt.Errorf("give the paravisor user data: %w", err)
	}
	for range renewAttempts {
		hcl, runtime, err := a.read(ctx)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(runtime.UserData, user[:]) {
			e.HCL = hcl
			return runtime, nil
		}
		if err := a.cfg.Wait(ctx, renewPause); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the paravisor has not renewed the HCL report after %s", renewPause*renewAttempts)
}

func (a *Attester) read(ctx context.Context) (*HCLReport, *RuntimeData, error) {
	raw, err := a.cfg.Chip.ReadNV(ctx, ReportIndex)
	if err != nil {
		return nil, nil, fmt.Errorf("read the HCL report: %w", err)
	}
	hcl, err := ParseHCL(raw)
	if err != nil {
		return nil, nil, err
	}
	if got := hcl.Platform(); got != a.cfg.Platform {
		return nil, nil, fmt.Errorf("the HCL report is one of %s", got)
	}
	runtime, err := ParseRuntimeData(hcl.RuntimeData)
	return hcl, runtime, err
}

// BindInitData extends the digest of the init-data document into PCR 8 of the
// vTPM, once: see [tpm.BindInitData].
func (a *Attester) BindInitData(ctx context.Context, digest []byte) error {
	return tpm.BindInitData(ctx, a.cfg.Chip, digest)
}

// endorse adds what vouches for the hardware's report.
func (a *Attester) endorse(ctx context.Context, e *Evidence) (err error) {
	if a.cfg.Platform == measure.AzTDXvTPM {
		e.TDQuote, err = a.cfg.Metadata.tdQuote(ctx, e.HCL)
		return err
	}
	e.VCEK, err = a.certs.get(ctx, a.cfg.Metadata, e.HCL)
	return err
}

// Platform returns the platform of a guest that has this report.
func (h *HCLReport) Platform() measure.Platform {
	if h.Type == ReportTDX {
		return measure.AzTDXvTPM
	}
	return measure.AzSNPvTPM
}
