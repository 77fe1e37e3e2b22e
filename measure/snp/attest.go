package snp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// AttesterConfig says how to ask the secure processor of this machine.
type AttesterConfig struct {
	Kernel tsm.Kernel
	// PrivLevel is the VMPL to report for; nil means the most privileged one
	// that the kernel may ask for. Verifiers demand 0 unless told otherwise.
	PrivLevel *uint8
	Logger    *slog.Logger // nil discards
}

// Attester obtains reports of the guest that it runs in: by configfs-tsm where
// the kernel has it, else from [GuestDevice] with the host's certificates, else
// without them. It is safe for concurrent use.
type Attester struct {
	reports tsm.Reports
	level   *uint8
	log     *slog.Logger
}

// NewAttester returns an attester. It asks for nothing yet.
func NewAttester(cfg AttesterConfig) (*Attester, error) {
	if cfg.Kernel == nil {
		return nil, errors.New("snp: no kernel to ask for reports")
	}
	if cfg.PrivLevel != nil && *cfg.PrivLevel > 3 {
		return nil, fmt.Errorf("snp: VMPL %d is not one of 0 to 3", *cfg.PrivLevel)
	}
	a := &Attester{reports: tsm.Reports{Kernel: cfg.Kernel}, level: cfg.PrivLevel, log: cfg.Logger}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	return a, nil
}

// Platform returns [measure.SNP].
func (a *Attester) Platform() measure.Platform { return measure.SNP }

// Evidence returns a fresh report over the report data, with the certificates
// that the host provided, in the wire form of kbs-protocol 16.2.
func (a *Attester) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	e, err := a.obtain(ctx, data)
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("obtain SNP report: %w", err)
	}
	return e.Wire()
}

// BindInitData compares HOST_DATA of a fresh report with the digest of the
// init-data document, nil for none (guest-protocol 5.3). A difference wraps
// [initdata.ErrField].
func (a *Attester) BindInitData(ctx context.Context, digest []byte) error {
	e, err := a.obtain(ctx, measure.ReportData{})
	if err != nil {
		return fmt.Errorf("read HOST_DATA: %w", err)
	}
	return initdata.CompareField(e.Report.HostData[:], digest)
}

// obtain asks the interfaces in their order. A later one is asked only if the
// earlier one does not exist: what a driver refused, its other interface
// would refuse too.
func (a *Attester) obtain(ctx context.Context, data measure.ReportData) (*Evidence, error) {
	rep, err := a.reports.Get(ctx, tsm.Request{Provider: tsm.ProviderSNP, InBlob: data[:], PrivLevel: a.level})
	raw, table := rep.Out, rep.Aux
	if errors.Is(err, tsm.ErrNoProvider) {
		absent := err
		if raw, table, err = a.fromDevice(ctx, data); err != nil {
			err = fmt.Errorf("/%s: %w (and %w)", GuestDevice, err, absent)
		}
	}
	if err != nil {
		return nil, err
	}
	r, err := ParseReport(raw)
	if err != nil {
		return nil, err
	}
	if r.ReportData != [64]byte(data) {
		return nil, errors.New("the report is over other data than was asked for")
	}
	certs, err := parseCertificateTable(table)
	if err != nil {
		// They are a hint of the host. A verifier can have its own, so their
		// state does not decide whether there is evidence.
		a.log.Warn("the host's certificate table is not sent", slog.Any("err", err))
	}
	return &Evidence{Report: r, Certificates: certs}, nil
}

func (a *Attester) fromDevice(ctx context.Context, data measure.ReportData) (report, certificates []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	var level uint32
	if a.level != nil {
		level = uint32(*a.level)
	}
	report, certificates, err = extendedReport(a.reports.Kernel, data, level)
	if errors.Is(err, errTableTooLarge) || errors.Is(err, syscall.ENOTTY) {
		report, err = plainReport(a.reports.Kernel, data, level)
	}
	return report, certificates, err
}
