package obtain

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/cca"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// tpmRuntimePCR is for runtime events where the field's PCR 17 is a real one: that
// belongs to the dynamic launch, and the TPM lets no operating system extend it.
const tpmRuntimePCR = 14

// log opens the log of runtime events. firmware names the file of the log that
// it goes on from, registers are nil where nothing can be extended.
func (c Config) log(ctx context.Context, firmware string, registers aael.Registers) (*aael.Log, error) {
	cfg := aael.Config{Path: c.RuntimeLog}
	if c.Record {
		cfg.Registers = registers
	}
	if cfg.Registers != nil {
		var err error
		if cfg.Firmware, err = tsm.ReadOptional(c.Machine.Kernel, firmware, eventlog.MaxSize); err != nil {
			return nil, err
		}
	}
	return aael.Open(ctx, cfg)
}

func openTDX(ctx context.Context, cfg Config) (*Guest, error) {
	var registers aael.Registers
	switch rtmrs, err := tdx.NewRTMRs(cfg.Machine.Kernel); {
	case err == nil:
		registers = rtmrs
	case !errors.Is(err, aael.ErrNotSupported):
		return nil, err
	}
	log, err := cfg.log(ctx, tdx.FirmwareLog, registers)
	if err != nil {
		return nil, err
	}
	a, err := tdx.NewAttester(tdx.AttesterConfig{
		Kernel: cfg.Machine.Kernel, QuoteService: cfg.Machine.QuoteService, RuntimeLog: log, Logger: cfg.Logger,
	})
	return &Guest{Attester: a, Log: log, RuntimePCR: eventlog.DefaultRuntimePCR}, err
}

func openSNP(ctx context.Context, cfg Config) (*Guest, error) {
	a, err := snp.NewAttester(snp.AttesterConfig{Kernel: cfg.Machine.Kernel, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	return cfg.withoutRegisters(ctx, a)
}

func openCCA(ctx context.Context, cfg Config) (*Guest, error) {
	a, err := cca.NewAttester(cfg.Machine.Kernel)
	if err != nil {
		return nil, err
	}
	return cfg.withoutRegisters(ctx, a)
}

// withoutRegisters is for platforms whose evidence has no room for events. Arm's
// realms have registers for them, which no kernel offers.
func (c Config) withoutRegisters(ctx context.Context, a Attester) (*Guest, error) {
	log, err := c.log(ctx, "", nil)
	return &Guest{Attester: a, Log: log, RuntimePCR: eventlog.DefaultRuntimePCR}, err
}

func openAzure(p measure.Platform) func(context.Context, Config) (*Guest, error) {
	return func(ctx context.Context, cfg Config) (*Guest, error) {
		log, err := cfg.log(ctx, tpm.FirmwareLog, tpm.Registers{Chip: cfg.Machine.TPM})
		if err != nil {
			return nil, err
		}
		a, err := azure.NewAttester(azure.AttesterConfig{
			Platform: p, Chip: cfg.Machine.TPM, Metadata: cfg.Machine.Metadata, Kernel: cfg.Machine.Kernel, RuntimeLog: log,
		})
		return &Guest{Attester: a, Log: log, RuntimePCR: tpmRuntimePCR}, err
	}
}

func openTPM(ctx context.Context, cfg Config) (*Guest, error) {
	log, err := cfg.log(ctx, tpm.FirmwareLog, tpm.Registers{Chip: cfg.Machine.TPM})
	if err != nil {
		return nil, err
	}
	a, err := tpm.NewAttester(tpm.AttesterConfig{Chip: cfg.Machine.TPM, Kernel: cfg.Machine.Kernel, RuntimeLog: log})
	return &Guest{Attester: a, Log: log, RuntimePCR: tpmRuntimePCR}, err
}
