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

// unfit are PCRs of the operating system that cannot keep a record of it: 8
// holds the init-data, 10 is the kernel's own, 16 and 23 can be reset by
// everyone.
var unfit = []int{InitDataPCR, 10, 16, 23}

// Index implements [aael.Registers]: the register is the PCR itself. Which of 17
// to 22 the operating system may extend is the TPM's to say.
func (r Registers) Index(pcr int) (int, error) {
	if pcr < 8 || pcr >= PCRs || slices.Contains(unfit, pcr) {
		return 0, fmt.Errorf("PCR %d cannot keep a record of runtime events: 9, 11 to 15 and 17 to 22 can", pcr)
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
