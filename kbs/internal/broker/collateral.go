package broker

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/metrics"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// dated is what a vendor says about its platform for some time only.
type dated struct {
	platform, name string
	issued, ends   time.Time
}

// datedOf reads the dates of the configured revocation lists.
func datedOf(cfg config.Config) ([]dated, error) {
	var out []dated
	for platform, lists := range map[measure.Platform]map[string]string{
		measure.SNP: cfg.Verifier.SNP.RevocationLists, measure.AzSNPvTPM: cfg.Verifier.AzSNPvTPM.RevocationLists,
	} {
		for generation, path := range lists {
			crl, err := readList(path)
			if err != nil {
				return nil, fmt.Errorf("verifier.%s.revocation_lists: %w", platform, err)
			}
			out = append(out, dated{string(platform), "crl_" + generation, crl.ThisUpdate, crl.NextUpdate})
		}
	}
	return out, nil
}

func readList(path string) (*x509.RevocationList, error) {
	raw, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	crl, err := x509.ParseRevocationList(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return crl, nil
}

// collateral lists all of it that is at hand: the files that the configuration
// names, and what was fetched.
func (b *Broker) collateral() []dated {
	out := slices.Clone(*b.lists.Load())
	if b.published == nil {
		return out
	}
	for _, s := range b.published.Status() {
		if !s.Name.OfChip() {
			vendor, name, _ := strings.Cut(string(s.Name), "/")
			out = append(out, dated{vendor, name, s.From, s.Until})
		}
	}
	return out
}

// checkCollateral fails when collateral has ended: evidence that needs it is
// refused from then on, or from the end of the grace.
func (b *Broker) checkCollateral(context.Context) error {
	for _, c := range b.collateral() {
		if !b.Now().Before(c.ends) {
			return fmt.Errorf("%s %s ended at %s", c.platform, c.name, c.ends.Format(time.RFC3339))
		}
	}
	return nil
}

func (b *Broker) collateralGauge(of func(dated) float64) metrics.Source {
	return func(context.Context) ([]metrics.Sample, error) {
		var out []metrics.Sample
		for _, c := range b.collateral() {
			out = append(out, metrics.Sample{Value: of(c), Labels: []string{c.platform, c.name}})
		}
		return out, nil
	}
}
