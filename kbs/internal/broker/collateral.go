package broker

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/metrics"
)

// collateral is what a vendor says about its platform for some time only.
type collateral struct {
	platform, name string
	issued, ends   time.Time
}

// collateralOf reads the dates of the configured revocation lists.
func collateralOf(cfg config.Config) ([]collateral, error) {
	var out []collateral
	for generation, path := range cfg.Verifier.SNP.RevocationLists {
		raw, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("verifier.snp.revocation_lists: %w", err)
		}
		if block, _ := pem.Decode(raw); block != nil {
			raw = block.Bytes
		}
		crl, err := x509.ParseRevocationList(raw)
		if err != nil {
			return nil, fmt.Errorf("verifier.snp.revocation_lists: %s: %w", path, err)
		}
		out = append(out, collateral{"snp", "crl_" + generation, crl.ThisUpdate, crl.NextUpdate})
	}
	return out, nil
}

// checkCollateral fails when a revocation list has ended: evidence that needs
// it is refused from then on.
func (b *Broker) checkCollateral(context.Context) error {
	for _, c := range *b.collateral.Load() {
		if !b.Now().Before(c.ends) {
			return fmt.Errorf("%s %s ended at %s", c.platform, c.name, c.ends.Format(time.RFC3339))
		}
	}
	return nil
}

func (b *Broker) collateralGauge(of func(collateral) float64) metrics.Source {
	return func(context.Context) ([]metrics.Sample, error) {
		var out []metrics.Sample
		for _, c := range *b.collateral.Load() {
			out = append(out, metrics.Sample{Value: of(c), Labels: []string{c.platform, c.name}})
		}
		return out, nil
	}
}
