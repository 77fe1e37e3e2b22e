package tdx

import (
	"context"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// measurementDir is where Linux shows the TD's registers since 6.16
// (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest).
const measurementDir = "sys/devices/virtual/misc/tdx_guest/measurements"

const registerSize = 48 // SHA-384

// RTMRs are the registers of the TD, by their MR index in logs, which is one more
// than the number of the RTMR. Extending them takes Linux 6.16; reading them
// does not.
type RTMRs struct{ kernel tsm.Kernel }

// NewRTMRs returns the registers, or an error that wraps
// [aael.ErrNotSupported] if this kernel cannot extend them.
func NewRTMRs(k tsm.Kernel) (*RTMRs, error) {
	if !k.Exists(measurementDir) {
		return nil, fmt.Errorf("%w: /%s is not there, which takes Linux 6.16", aael.ErrNotSupported, measurementDir)
	}
	return &RTMRs{kernel: k}, nil
}

// Algorithm implements [aael.Registers].
func (r *RTMRs) Algorithm() eventlog.Algorithm { return eventlog.SHA384 }

// Index implements [aael.Registers]: the mapping of UEFI 2.11 section 38.4.1.
// Extending what the firmware or the kernel measures into would make the boot
// look like another one, so only the PCRs behind RTMR2 and RTMR3 are given.
func (r *RTMRs) Index(pcr int) (int, error) {
	if pcr < 8 || pcr > 23 {
		return 0, fmt.Errorf("PCR %d is not one of 8 to 23, which stand for registers of the running guest", pcr)
	}
	return eventlog.MRIndex(pcr), nil
}

func (r *RTMRs) file(index int) (string, error) {
	if index < 1 || index > 4 {
		return "", fmt.Errorf("there is no MR index %d", index)
	}
	return measurementDir + "/rtmr" + strconv.Itoa(index-1) + ":sha384", nil
}

// Read implements [aael.Registers].
func (r *RTMRs) Read(ctx context.Context, index int) ([]byte, error) {
	file, err := r.file(index)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	value, err := r.kernel.ReadFile(file, registerSize)
	if err == nil {
		return value, nil
	}
	report, reportErr := tdReport(r.kernel, measure.ReportData{})
	if reportErr != nil {
		return nil, fmt.Errorf("read RTMR%d: %w", index-1, err)
	}
	return report.rtmr(index - 1), nil
}

// Extend implements [aael.Registers].
func (r *RTMRs) Extend(ctx context.Context, index int, digest []byte) error {
	file, err := r.file(index)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if len(digest) != registerSize {
		return fmt.Errorf("an RTMR is extended by %d bytes, got %d", registerSize, len(digest))
	}
	if err := r.kernel.WriteFile(file, digest); err != nil {
		return fmt.Errorf("extend RTMR%d: %w", index-1, err)
	}
	return nil
}
