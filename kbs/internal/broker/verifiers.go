package broker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/sample"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// openVerifiers fills the registry. Each verifier may later give way to one
// that was made of newer files.
func (b *Broker) openVerifiers() error {
	all, collateral, err := b.readVerifiers(b.cfg)
	if err != nil {
		return err
	}
	behind := make([]measure.Verifier, len(all))
	for i, v := range all {
		r := &replaceable{platform: v.Platform()}
		r.now.Store(&v)
		b.replaceables = append(b.replaceables, r)
		behind[i] = r
	}
	b.collateral.Store(&collateral)
	b.verifiers, err = measure.NewRegistry(behind...)
	return err
}

// reloadVerifiers reads the verifiers' files again. Either all of them are
// good, or those in use stay.
func (b *Broker) reloadVerifiers(cfg config.Config) error {
	all, collateral, err := b.readVerifiers(cfg)
	if err != nil {
		return err
	}
	if len(all) != len(b.replaceables) {
		return errors.New("other platforms than before need a restart")
	}
	for i, r := range b.replaceables {
		if all[i].Platform() != r.platform {
			return errors.New("other platforms than before need a restart")
		}
	}
	for i, r := range b.replaceables {
		r.now.Store(&all[i])
	}
	b.collateral.Store(&collateral)
	return nil
}

func (b *Broker) readVerifiers(cfg config.Config) ([]measure.Verifier, []collateral, error) {
	all, err := verifiers(cfg, b.Now)
	if err != nil {
		return nil, nil, err
	}
	c, err := collateralOf(cfg)
	return all, c, err
}

// replaceable is a verifier that can give way to another for the same
// platform. Evidence that is being verified is verified by the one it began
// with.
type replaceable struct {
	platform measure.Platform
	now      atomic.Pointer[measure.Verifier]
}

// Platform implements [measure.Verifier].
func (r *replaceable) Platform() measure.Platform { return r.platform }

// Verify implements [measure.Verifier].
func (r *replaceable) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	return (*r.now.Load()).Verify(ctx, ev, want)
}

// verifiers makes those of the platforms that the configuration enables. This
// list is all that a broker accepts.
func verifiers(cfg config.Config, now func() time.Time) ([]measure.Verifier, error) {
	var all []measure.Verifier
	if c := cfg.Verifier.SNP; c.Enabled {
		vc := snp.VerifierConfig{UnsafeNoRevocation: c.InsecureNoRevocation, Now: now, RevocationLists: map[snp.Generation][]byte{}}
		for name, path := range c.RevocationLists {
			g, err := snp.ParseGeneration(name)
			if err != nil {
				return nil, fmt.Errorf("verifier.snp.revocation_lists: %w", err)
			}
			if vc.RevocationLists[g], err = readFile(path); err != nil {
				return nil, fmt.Errorf("verifier.snp.revocation_lists: %w", err)
			}
		}
		for _, r := range c.InsecureSimulatedRoots {
			bundle, err := readFile(r.Path)
			if err != nil {
				return nil, fmt.Errorf("verifier.snp.insecure_simulated_roots: %w", err)
			}
			vc.UnsafeSimulatedRoots = append(vc.UnsafeSimulatedRoots, snp.SimulatedRoot{Name: r.Name, Bundle: bundle})
		}
		v, err := snp.NewVerifier(vc)
		if err != nil {
			return nil, fmt.Errorf("verifier.snp: %w", err)
		}
		all = append(all, v)
	}
	if cfg.Verifier.Sample.InsecureEnabled {
		for _, p := range []measure.Platform{measure.Sample, measure.SampleDevice} {
			v, err := sample.UnsafeVerifier(p)
			if err != nil {
				return nil, fmt.Errorf("verifier.sample: %w", err)
			}
			all = append(all, v)
		}
	}
	return all, nil
}
