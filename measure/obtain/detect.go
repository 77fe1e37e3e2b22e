package obtain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// Probe tells of one platform whether this machine has it.
type Probe struct {
	Platform measure.Platform
	Found    bool
	// Seen is what was looked at and what was there, for a person.
	Seen string
	// Err is set if an interface is there and could not be asked.
	Err error
}

// NotFound is the error of a machine that has no platform, or not the one that
// was named.
type NotFound struct {
	Wanted measure.Platform // empty for any
	Probes []Probe          // one for each platform that was looked for
}

// Error tells everything that was looked for.
func (e *NotFound) Error() string {
	var b strings.Builder
	b.WriteString(ErrNone.Error())
	for i, p := range e.Probes {
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		b.WriteString(separator + string(p.Platform) + ": " + p.Seen)
	}
	return b.String()
}

// Unwrap returns [ErrNone], and why interfaces that are there failed.
func (e *NotFound) Unwrap() []error {
	errs := []error{ErrNone}
	for _, p := range e.Probes {
		if p.Err != nil {
			errs = append(errs, p.Err)
		}
	}
	return errs
}

// way is how one platform is found and opened.
type way struct {
	platform measure.Platform
	probe    func(ctx context.Context, s *sight) Probe
	open     func(ctx context.Context, cfg Config) (*Guest, error)
}

// ways lists the platforms in the order of detection. What has a TPM comes after
// what has a device of the processor's: the host may add a TPM to any guest, with
// whatever it likes in the NV indices. Guests of Azure have no such device. A TPM
// alone comes last, for it proves least.
func ways() []way {
	return []way{
		{measure.TDX, probeTDX, openTDX},
		{measure.SNP, probeSNP, openSNP},
		{measure.CCA, probeCCA, openCCA},
		{measure.AzTDXvTPM, probeAzure(measure.AzTDXvTPM), openAzure(measure.AzTDXvTPM)},
		{measure.AzSNPvTPM, probeAzure(measure.AzSNPvTPM), openAzure(measure.AzSNPvTPM)},
		{measure.TPM, probeTPM, openTPM},
	}
}

// Platforms are those that [Open] knows, in the order of detection.
func Platforms() []measure.Platform {
	var out []measure.Platform
	for _, w := range ways() {
		out = append(out, w.platform)
	}
	return out
}

// find returns the way of a platform, or the first that leads somewhere.
func (m Machine) find(ctx context.Context, platform measure.Platform) (way, []Probe, error) {
	if platform != "" && !slices.Contains(Platforms(), platform) {
		return way{}, nil, fmt.Errorf("%w: nothing here obtains evidence of platform %q; known are %v", ErrNone, platform, Platforms())
	}
	s := &sight{Machine: m, azure: sync.OnceValues(func() (measure.Platform, Probe) { return m.readHCL(ctx) })}
	s.provider, s.err = tsm.Reports{Kernel: m.Kernel}.Provider()
	var probes []Probe
	for _, w := range ways() {
		if platform != "" && w.platform != platform {
			continue
		}
		p := w.probe(ctx, s)
		p.Platform = w.platform
		failed := slices.ContainsFunc(probes, func(p Probe) bool { return p.Err != nil })
		if p.Found && w.platform == measure.TPM && failed {
			// One of the others may be there, and a TPM proves less.
			p = Probe{Platform: measure.TPM, Seen: p.Seen + ", and is not taken while a stronger platform may be there"}
		}
		probes = append(probes, p)
		if p.Found {
			return w, probes, nil
		}
	}
	return way{}, probes, &NotFound{platform, probes}
}

// sight is the machine with what was seen once for all probes.
type sight struct {
	Machine
	provider string // of configfs-tsm
	err      error  // why there is none
	azure    func() (measure.Platform, Probe)
}

// readHCL tells which of Azure's platforms this is, if any.
func (m Machine) readHCL(ctx context.Context) (measure.Platform, Probe) {
	where := fmt.Sprintf("the TPM's NV index %#x", azure.ReportIndex)
	raw, err := m.TPM.ReadNV(ctx, azure.ReportIndex)
	switch {
	case errors.Is(err, tpmdev.ErrNoDevice):
		return "", Probe{Seen: err.Error()}
	case errors.Is(err, tpmdev.ErrNoIndex):
		return "", Probe{Seen: where + " is not there"}
	case err != nil:
		return "", Probe{Seen: fmt.Sprintf("%s cannot be read: %v", where, err), Err: err}
	}
	h, err := azure.ParseHCL(raw)
	if err != nil {
		return "", Probe{Seen: fmt.Sprintf("%s has no HCL report: %v", where, err)}
	}
	return h.Platform(), Probe{Seen: fmt.Sprintf("%s has an HCL report of %s", where, h.Type)}
}

func probeAzure(p measure.Platform) func(context.Context, *sight) Probe {
	return func(_ context.Context, s *sight) Probe {
		found, probe := s.azure()
		probe.Found = found == p
		return probe
	}
}

// configfs tells whether the provider is the wanted one, and what there is
// instead.
func (s *sight) configfs(want string) Probe {
	switch {
	case s.err == nil && s.provider == want:
		return Probe{Found: true, Seen: "configfs-tsm has provider " + want}
	case s.err == nil:
		return Probe{Seen: fmt.Sprintf("configfs-tsm has provider %q, not %q", s.provider, want)}
	case errors.Is(s.err, tsm.ErrNoProvider) && s.Kernel.Exists(tsm.ReportDir):
		return Probe{Seen: "configfs-tsm (/" + tsm.ReportDir + ") has no provider"}
	case errors.Is(s.err, tsm.ErrNoProvider):
		return Probe{Seen: "there is no configfs-tsm (/" + tsm.ReportDir + ")"}
	}
	return Probe{Seen: fmt.Sprintf("configfs-tsm (/%s) fails: %v", tsm.ReportDir, s.err), Err: s.err}
}

// orDevice takes a device node for the platform, if configfs-tsm has none.
func (s *sight) orDevice(p Probe, device, module string) Probe {
	switch {
	case p.Found:
	case s.Kernel.Exists(device):
		p.Found, p.Err = true, nil
		p.Seen += ", /" + device + " is there"
	default:
		p.Seen += fmt.Sprintf(", and no /%s (driver %s)", device, module)
	}
	return p
}

func probeTDX(_ context.Context, s *sight) Probe {
	return s.orDevice(s.configfs(tsm.ProviderTDX), tdx.GuestDevice, "tdx-guest")
}

func probeSNP(_ context.Context, s *sight) Probe {
	return s.orDevice(s.configfs(tsm.ProviderSNP), snp.GuestDevice, "sev-guest")
}

func probeCCA(_ context.Context, s *sight) Probe { return s.configfs(tsm.ProviderCCA) }

func probeTPM(ctx context.Context, s *sight) Probe {
	switch err := s.TPM.Present(ctx); {
	case err == nil:
		return Probe{Found: true, Seen: "a TPM 2.0 answers"}
	case errors.Is(err, tpmdev.ErrNoDevice):
		return Probe{Seen: err.Error()}
	default:
		return Probe{Seen: err.Error(), Err: err}
	}
}
