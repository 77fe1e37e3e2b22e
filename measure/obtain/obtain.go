// Package obtain opens what speaks for the guest that it runs in: it looks at
// the interfaces of the kernel, finds the platform, and returns the attester of
// that platform's own package with the log of runtime events that belongs to it.
//
// Detection happens once, in the open, and in one order (see ADR 22). It
// ends with a platform or with an error that tells of every interface what was
// missing there. The field falls back to a sample attester that proves nothing;
// nothing here knows of one. Nor is a TPM alone taken where the interface of a
// stronger platform is there and fails: whoever can make it fail could choose.
package obtain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/mdlayher/vsock"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx/qgs"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// ErrNone means that nothing on this machine attests for it, or not what was
// asked for by name.
var ErrNone = errors.New("no attester for this machine")

// An Attester obtains evidence, and knows what this guest's launch was bound to.
type Attester interface {
	measure.Attester
	// BindInitData makes sure that evidence is bound to the digest of the
	// init-data document, nil for none: it compares a field of the launch, or
	// extends a PCR. An error that wraps initdata.ErrField says that the guest
	// was launched with another document.
	BindInitData(ctx context.Context, digest []byte) error
}

// A Chip is a TPM that may be there or not. Where there is no NV index of a
// number, ReadNV wraps [tpmdev.ErrNoIndex].
type Chip interface {
	azure.Chip
	// Present asks the TPM for its version. Without any TPM the error wraps
	// [tpmdev.ErrNoDevice].
	Present(ctx context.Context) error
}

// Machine is where evidence comes from.
type Machine struct {
	Kernel tsm.Kernel
	TPM    Chip
	// QuoteService reaches the quote service of a TDX host; nil for none.
	QuoteService qgs.Dialer
	// Metadata is Azure's service at the host.
	Metadata azure.Metadata
}

// hostCID is the vsock address of the host (linux/vm_sockets.h).
const hostCID = 2

// ThisMachine is the one that the program runs on. The TPM is the first of the
// devices that exists, [tpmdev.DefaultDevices] if none is given.
func ThisMachine(tpmDevices ...string) Machine {
	if len(tpmDevices) == 0 {
		tpmDevices = tpmdev.DefaultDevices
	}
	return Machine{
		Kernel: tsm.Linux{Root: "/"},
		TPM:    tpmdev.New(tpmdev.File(tpmDevices...)),
		QuoteService: func(context.Context) (net.Conn, error) {
			return vsock.Dial(hostCID, qgs.DefaultPort, nil)
		},
	}
}

// Config says what to open.
type Config struct {
	Machine Machine
	// Platform to open; empty for the one that is found.
	Platform measure.Platform
	// RuntimeLog is the path of the log of runtime events that is sent with
	// evidence; empty for [aael.DefaultPath]. It need not be there.
	RuntimeLog string
	// Record opens the log for writing, and finishes what a crash interrupted.
	// One process of a guest does: its agent.
	Record bool
	Logger *slog.Logger // nil discards
}

// Guest is what speaks for this guest.
type Guest struct {
	Attester Attester
	// Log takes runtime events, if it was opened for writing and the platform
	// has registers for them. Else it refuses with an error that wraps
	// [aael.ErrNotSupported].
	Log *aael.Log
	// RuntimePCR is the PCR that runtime events go to unless told otherwise.
	RuntimePCR int
	// Probes tell what was looked for.
	Probes []Probe
}

// Open finds the platform, unless it is named, and opens it. If there is none
// the error wraps [ErrNone] and is a [*NotFound].
func Open(ctx context.Context, cfg Config) (*Guest, error) {
	if cfg.Machine.Kernel == nil || cfg.Machine.TPM == nil {
		return nil, errors.New("obtain: no kernel or no TPM to look at")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.RuntimeLog == "" {
		cfg.RuntimeLog = aael.DefaultPath
	}
	way, probes, err := cfg.Machine.find(ctx, cfg.Platform)
	if err != nil {
		return nil, err
	}
	if way.platform == measure.TPM && cfg.Platform == "" {
		cfg.Logger.Warn("this machine attests with a TPM alone: that tells what it booted, and nothing protects its memory from the host")
	}
	g, err := way.open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", way.platform, err)
	}
	g.Probes = probes
	return g, nil
}
