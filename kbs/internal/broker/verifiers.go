package broker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/sample"
)

// openVerifiers fills the registry. Each verifier may later give way to one
// that was made of newer files.
func (b *Broker) openVerifiers() error {
	all, lists, err := b.readVerifiers(b.cfg)
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
	b.lists.Store(&lists)
	b.verifiers, err = measure.NewRegistry(behind...)
	return err
}

// reloadVerifiers reads the verifiers' files again. Either all of them are
// good, or those in use stay.
func (b *Broker) reloadVerifiers(cfg config.Config) error {
	all, lists, err := b.readVerifiers(cfg)
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
	b.lists.Store(&lists)
	return nil
}

func (b *Broker) readVerifiers(cfg config.Config) ([]measure.Verifier, []dated, error) {
	if b.published != nil { // it believes whom the verifiers believe
		trusted, err := authorities(cfg.Verifier)
		if err != nil {
			return nil, nil, err
		}
		b.published.Trust(trusted)
	}
	all, err := verifiers(cfg, tools{now: b.Now, published: b.published, grace: cfg.Collateral.Grace()})
	if err != nil {
		return nil, nil, err
	}
	c, err := datedOf(cfg)
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

// VerifyAll implements [measure.ListVerifier].
func (r *replaceable) VerifyAll(ctx context.Context, ev measure.Evidence, want measure.Expected) ([]measure.Verdict, error) {
	return measure.VerifyAll(ctx, *r.now.Load(), ev, want)
}

// opener makes the verifiers of a platform, none if the configuration does not
// enable it. Each but the small ones has a file of its own,
// verifier_<platform>.go.
type opener func(v config.Verifier, t tools) ([]measure.Verifier, error)

// tools are what verifiers have in common.
type tools struct {
	now       func() time.Time
	published *collateral.Store // nil where it is not enabled
	grace     time.Duration     // of collateral
}

// verifiers makes those of the platforms that the configuration enables. This
// list is all that a broker accepts.
func verifiers(cfg config.Config, t tools) ([]measure.Verifier, error) {
	var all []measure.Verifier
	for _, p := range []struct {
		name string
		open opener
	}{
		{"snp", openSNP},
		{"tdx", openTDX},
		{"sgx", openSGX},
		{"az-snp-vtpm", openAzSNP},
		{"az-tdx-vtpm", openAzTDX},
		{"tpm", openTPM},
		{"cca", openCCA},
		{"nvidia", openNVIDIA},
		{"sample", openSample},
	} {
		vs, err := p.open(cfg.Verifier, t)
		if err != nil {
			return nil, fmt.Errorf("verifier.%s: %w", p.name, err)
		}
		all = append(all, vs...)
	}
	return all, nil
}

// readRoots reads the files of simulated roots.
func readRoots(roots []config.SimulatedRoot, add func(name string, bundle []byte)) error {
	for _, r := range roots {
		bundle, err := readFile(r.Path)
		if err != nil {
			return fmt.Errorf("insecure_simulated_roots: %w", err)
		}
		add(r.Name, bundle)
	}
	return nil
}

func only[V measure.Verifier](v V, err error) ([]measure.Verifier, error) {
	if err != nil {
		return nil, err
	}
	return []measure.Verifier{v}, nil
}

func openSample(v config.Verifier, _ tools) ([]measure.Verifier, error) {
	if !v.Sample.InsecureEnabled {
		return nil, nil
	}
	var all []measure.Verifier
	for _, p := range []measure.Platform{measure.Sample, measure.SampleDevice} {
		s, err := sample.UnsafeVerifier(p)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}
