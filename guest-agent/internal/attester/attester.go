// Package attester chooses what speaks for this guest's hardware. The choice is
// made once, at start, and in the open: a guest for which no attester is found
// does not start to attest. Upstream falls back to a sample attester that proves
// nothing (guest-protocol 4.2); there is no such thing here.
package attester

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// ErrNone says that neither a simulated device was named nor real hardware
// found.
var ErrNone = errors.New("no attester for this platform")

// Platform is an attester that also knows the launch field that init-data is
// bound to.
type Platform interface {
	measure.Attester
	HostData() ([32]byte, error)
}

// Options say where to look.
type Options struct {
	// SimulatedSNP is the directory of a simulated SNP guest, made by `measure
	// sim`. Its reports have the true format but end in a root that only a
	// broker that names it trusts.
	SimulatedSNP string
	Logger       *slog.Logger
}

// Open returns the attester of this guest, or an error that wraps [ErrNone].
// Detection of real hardware (guest-protocol 4.2) is not built in yet, so
// without a simulated device the answer is always ErrNone.
func Open(o Options) (Platform, error) {
	if o.SimulatedSNP == "" {
		return nil, fmt.Errorf("%w: detection of hardware is not built in yet", ErrNone)
	}
	sim, err := snp.OpenSimulator(o.SimulatedSNP)
	if err != nil {
		return nil, fmt.Errorf("open simulated snp: %w", err)
	}
	o.Logger.Warn("this guest attests with a simulated device: nothing protects its memory",
		slog.String("platform", string(sim.Platform())),
		slog.String("dir", o.SimulatedSNP))
	return sim, nil
}
