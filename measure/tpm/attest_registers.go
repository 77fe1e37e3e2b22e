package tpm

import (
	"context"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Registers are the PCRs that runtime events go to, in the SHA-256 bank.
type Registers struct{ Chip Chip }

// Algorithm implements [aael.Registers].
func (r Registers) Algorithm() eventlog.Algorithm { return Bank }

// fit are the PCRs that can keep a record of the running system. Of the others, 0
// to 7 are the firmware's, 8 holds the init-data, 10 is the kernel's own, 17 to 22
// belong to the dynamic launch, so that a TPM lets no operating system extend
// them, and 16 and 23 can be reset by everyone.
var fit = []int{9, 11, 12, 13, 14, 15}

// Index implements [aael.Registers]: the register is the PCR itself.
func (r Registers) Index(pcr int) (int, error) {
	if !slices.Contains(fit, pcr) {
		return 0, fmt.Errorf("PCR %d of a TPM cannot keep a record of runtime events, only %v can", pcr, fit)
	}
	return pcr, nil
}

// Read implements [aael.Registers].
func (r Registers) Read(ctx context.Context, index int) ([]byte, error) {
	if index < 0 || index >= PCRs {
		return nil, fmt.Errorf("there is no PCR %d", index)
	}
	values, err := r.Chip.ReadPCRs(ctx, Bank)
	if err != nil {
		return nil, err
	}
	return values[index], nil
}

// Extend implements [aael.Registers].
func (r Registers) Extend(ctx context.Context, index int, digest []byte) error {
	return r.Chip.Extend(ctx, index, Bank, digest)
}
