package nvidia

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/known"
)

// Checks of this platform beside those that all platforms have.
const (
	// CheckReport is whether a report is of a kind that may be judged at all.
	CheckReport measure.CheckName = "report"
	// CheckDevices is whether there are as many devices as are expected: a
	// device that failed would just not be in the evidence.
	CheckDevices measure.CheckName = "devices"
)

// Class is the attester class of a GPU.
const Class = "gpu"

// VerifierConfig says what a [Verifier] trusts. The zero value trusts NVIDIA's
// root, and refuses everything until the rest is decided.
type VerifierConfig struct {
	// Devices are the numbers of GPUs that a guest may have.
	Devices []int
	// Manifests are reference measurements, one for each release of driver and
	// VBIOS that is good: NVIDIA's own (SWID tags in XML, whose signature is not
	// checked), or JSON (see parseManifest).
	Manifests [][]byte
	// UnsafeSimulatedRoots are trusted beside NVIDIA's. Evidence under one
	// carries no proof of hardware at all.
	UnsafeSimulatedRoots []SimulatedRoot
	// UnsafeNoRevocation accepts certificates of which nobody asked whether they
	// were revoked. NVIDIA answers that by OCSP alone, and this package never
	// uses the network, so without it everything is refused.
	UnsafeNoRevocation bool
	// UnsafeNoManifest accepts releases of which no manifest is given. Where one
	// is given, it is compared all the same.
	UnsafeNoManifest bool
	// UnsafeAnyDevices accepts any number of GPUs.
	UnsafeAnyDevices bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// maxChains bounds the chains that a verifier remembers: one for each GPU and
// firmware.
const maxChains = 4096

// Verifier judges evidence of NVIDIA GPUs. What it trusts does not change after
// it was made.
type Verifier struct {
	cfg       VerifierConfig
	roots     []*root
	manifests []*manifest
	chains    *known.Set[known.Key, []*x509.Certificate]
}

// NewVerifier checks the configuration as a whole.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	v := &Verifier{cfg: c, roots: []*root{{name: RootName, sha256: RootSHA256}}, chains: known.New[known.Key, []*x509.Certificate](maxChains)}
	if v.cfg.Now == nil {
		v.cfg.Now = time.Now
	}
	seen := map[string]bool{}
	for _, s := range c.UnsafeSimulatedRoots {
		r, err := simulatedRoot(s)
		if err != nil {
			return nil, err
		}
		if seen[r.name] {
			return nil, fmt.Errorf("two simulated roots are named %q", r.name)
		}
		seen[r.name] = true
		v.roots = append(v.roots, r)
	}
	for i, raw := range c.Manifests {
		m, err := parseManifest(raw)
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", i, err)
		}
		if v.manifestFor(m.arch, m.component, m.version) != nil {
			return nil, fmt.Errorf("two manifests of %s %s for %s", m.component, m.version, m.arch)
		}
		v.manifests = append(v.manifests, m)
	}
	for _, n := range c.Devices {
		if n < 1 || n > maxDevices {
			return nil, fmt.Errorf("%d devices, want 1 to %d", n, maxDevices)
		}
	}
	return v, nil
}

// Platform returns [measure.NVIDIA].
func (v *Verifier) Platform() measure.Platform { return measure.NVIDIA }

// VerifyAll implements [measure.ListVerifier]: a verdict for each GPU, in the
// order of the evidence.
func (v *Verifier) VerifyAll(ctx context.Context, ev measure.Evidence, want measure.Expected) ([]measure.Verdict, error) {
	if err := errors.Join(ctx.Err(), want.Validate()); err != nil {
		return nil, err
	}
	devices, err := ParseEvidence(ev)
	if err != nil {
		return nil, err
	}
	all := make([]*examination, len(devices))
	for i, d := range devices {
		if all[i], err = v.examine(d); err != nil {
			return nil, fmt.Errorf("NVIDIA evidence: device %d: %w", i, err)
		}
	}
	count, verdicts := v.checkDevices(all), make([]measure.Verdict, len(all))
	for i, a := range all {
		verdicts[i] = a.verdict(want, count)
	}
	return verdicts, measure.ListErr(verdicts)
}

// Verify judges a list of GPUs as one: of each check the worst outcome. The
// claims are those of each, in a list, unless there is only one.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdicts, err := v.VerifyAll(ctx, ev, want)
	if verdicts == nil {
		return measure.Verdict{Platform: measure.NVIDIA, Class: Class}, err
	}
	one := summary(verdicts)
	return one, one.Err()
}

// examination is the evidence of one GPU with what was found out about it
// before the checks.
type examination struct {
	v        *Verifier
	now      time.Time
	device   Device
	report   *Report
	chain    []*x509.Certificate
	chainErr error // of what neither time nor trust decides
	root     *root // in which the chain ends; nil if none of the trusted
	matched  bool  // the measurements are those of the manifests
}

// examine parses evidence. An error is about its form.
func (v *Verifier) examine(d Device) (*examination, error) {
	a := &examination{v: v, now: v.cfg.Now(), device: d}
	var err error
	if a.report, err = ParseReport(d.Report); err != nil {
		return nil, err
	}
	key := known.Of(d.Certificate)
	chain, known := v.chains.Find(key)
	if !known {
		if chain, err = parseChain(d.Certificate); err != nil {
			return nil, fmt.Errorf("certificate chain: %w", err)
		}
	}
	a.chain = chain
	last := fingerprint(chain[len(chain)-1])
	for _, r := range v.roots {
		if r.sha256 == last {
			a.root = r
		}
	}
	if known || a.root == nil {
		return a, nil // checkChain says which roots there are
	}
	if a.chainErr = verifyChain(chain); a.chainErr == nil {
		v.chains.Remember(key, chain)
	}
	return a, nil
}

// verdict makes all checks, whatever the others found.
func (a *examination) verdict(want measure.Expected, count measure.Check) measure.Verdict {
	out := measure.Verdict{Platform: measure.NVIDIA, Class: Class, Checks: []measure.Check{
		a.checkReport(),
		a.checkSignature(),
		a.checkChain(),
		a.checkRevocation(),
		a.checkTCB(),
		checkNonce(a.report, want.ReportData),
		{Name: measure.CheckInitData, Outcome: measure.NotApplicable, Reason: "a GPU knows nothing of init-data; the CPU's evidence holds it"},
		{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "no log comes with the measurements"},
		count,
	}}
	if a.root != nil {
		out.Root = measure.Root{Name: a.root.name, Simulated: a.root.simulated}
	}
	out.Claims = a.claims()
	return out
}
