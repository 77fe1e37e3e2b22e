// Package attester chooses what speaks for this guest's hardware. The choice is
// made once, at start, and in the open: a guest for which no attester is found
// does not start to attest. Upstream falls back to a sample attester that proves
// nothing (guest-protocol 4.2); there is no such thing here.
package attester

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// ErrNone says that neither a simulated device was named nor a platform found.
var ErrNone = obtain.ErrNone

// Auto is the word for the platform that is found.
const Auto = "auto"

// Names lists the platforms, for a person.
func Names() string {
	var names []string
	for _, p := range obtain.Platforms() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// Options say where to look.
type Options struct {
	// Platform is one of [obtain.Platforms], or [Auto] or empty for the one that
	// is found.
	Platform string
	// TPMDevice is the path of the TPM; empty for the usual ones.
	TPMDevice string
	// RuntimeLog is the path of the log of runtime events; empty for
	// [aael.DefaultPath].
	RuntimeLog string
	// Record opens that log for writing.
	Record bool
	// SimulatedSNP is the directory of a simulated SNP guest, made by `measure
	// sim`. Its reports have the true format but end in a root that only a
	// broker that names it trusts. Nothing else is looked for then.
	SimulatedSNP string
	// SimulatedTDX is the same for a simulated TD. At most one of both is set.
	SimulatedTDX string
	Logger       *slog.Logger
}

// Open returns what speaks for this guest, or an error that wraps [ErrNone].
func Open(ctx context.Context, o Options) (*obtain.Guest, error) {
	var devices []string
	if o.TPMDevice != "" {
		devices = []string{o.TPMDevice}
	}
	return open(ctx, o, obtain.ThisMachine(devices...))
}

func open(ctx context.Context, o Options, machine obtain.Machine) (*obtain.Guest, error) {
	if o.RuntimeLog != "" && !filepath.IsAbs(o.RuntimeLog) {
		return nil, fmt.Errorf("the runtime log %q is not an absolute path", o.RuntimeLog)
	}
	if o.SimulatedSNP != "" || o.SimulatedTDX != "" {
		return o.simulated(ctx)
	}
	platform := measure.Platform(o.Platform)
	if o.Platform == Auto {
		platform = ""
	}
	g, err := obtain.Open(ctx, obtain.Config{
		Machine: machine, Platform: platform, RuntimeLog: o.RuntimeLog, Record: o.Record, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	found := slices.IndexFunc(g.Probes, func(p obtain.Probe) bool { return p.Found })
	o.Logger.Info("this guest attests", slog.String("platform", string(g.Attester.Platform())), slog.String("interface", g.Probes[found].Seen))
	return g, nil
}

func (o Options) simulated(ctx context.Context) (*obtain.Guest, error) {
	platform, dir := measure.SNP, o.SimulatedSNP
	if o.SimulatedTDX != "" {
		platform, dir = measure.TDX, o.SimulatedTDX
	}
	if p := o.Platform; p != "" && p != Auto && p != string(platform) {
		return nil, fmt.Errorf("platform %s was asked for, and a simulated %s", p, platform)
	}
	var sim obtain.Attester
	var err error
	if platform == measure.TDX {
		sim, err = tdx.OpenSimulator(dir)
	} else {
		sim, err = snp.OpenSimulator(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open simulated %s: %w", platform, err)
	}
	o.Logger.Warn("this guest attests with a simulated device: nothing protects its memory",
		slog.String("platform", string(platform)), slog.String("dir", dir))
	if o.RuntimeLog == "" {
		o.RuntimeLog = aael.DefaultPath
	}
	log, err := aael.Open(ctx, aael.Config{Path: o.RuntimeLog}) // its registers live no longer than one process
	return &obtain.Guest{Attester: sim, Log: log}, err
}

// Recorder records runtime events in the guest's log.
type Recorder struct {
	log *aael.Log
	pcr int
}

// NewRecorder returns a recorder into the register that stands for a PCR, or
// into the platform's usual one if it is 0. A PCR that cannot keep a record is
// refused; a platform that can keep none is an error that wraps
// [aael.ErrNotSupported].
func NewRecorder(g *obtain.Guest, pcr int) (*Recorder, error) {
	if pcr == 0 {
		pcr = g.RuntimePCR
	}
	if err := g.Log.Accepts(pcr); err != nil {
		return nil, err
	}
	return &Recorder{g.Log, pcr}, nil
}

// Record extends the register by an event and records it.
func (r *Recorder) Record(ctx context.Context, e eventlog.RuntimeEvent) error {
	return r.log.Extend(ctx, r.pcr, e)
}
