package broker

import (
	"crypto/x509"
	"fmt"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// collateralDir keeps what was fetched, under the state directory.
const collateralDir = "collateral"

// openCollateral opens the store of collateral, if it is enabled. Verifiers
// ask it, and Serve lets it renew what it has.
func (b *Broker) openCollateral() error {
	c := b.cfg.Collateral
	if !c.Enabled {
		return nil
	}
	trusted, err := authorities(b.cfg.Verifier)
	if err != nil {
		return err
	}
	fetchers, err := fetchersOf(c, trusted)
	if err != nil {
		return fmt.Errorf("collateral: %w", err)
	}
	s, err := collateral.Open(collateral.Config{
		Dir: filepath.Join(b.cfg.StateDir, collateralDir), Fetchers: fetchers, Authorities: trusted,
		Grace: c.Grace(), RefreshEvery: c.RefreshEvery(), Now: b.Now, Logger: b.Logger,
	})
	if err != nil {
		return err
	}
	b.published = s
	b.background = append(b.background, s.Run)
	b.closers = append(b.closers, s.Close)
	return nil
}

// authorities are those who may have signed what verifiers use: AMD, Intel, and
// simulated vendors of all tables. The same vendor may stand in several.
func authorities(v config.Verifier) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, table := range []struct {
		name  string
		roots []config.SimulatedRoot
	}{{"snp", v.SNP.InsecureSimulatedRoots}, {"az-snp-vtpm", v.AzSNPvTPM.InsecureSimulatedRoots}} {
		var roots []snp.SimulatedRoot
		err := readRoots(table.roots, func(name string, bundle []byte) {
			roots = append(roots, snp.SimulatedRoot{Name: name, Bundle: bundle})
		})
		if err != nil {
			return nil, fmt.Errorf("verifier.%s: %w", table.name, err)
		}
		all, err := snp.Authorities(roots)
		if err != nil {
			return nil, fmt.Errorf("verifier.%s: %w", table.name, err)
		}
		out = append(out, all...)
	}
	intel, err := intelAuthorities(v)
	return append(out, intel...), err
}

// fetchersOf lists who is asked, in this order: files with certificates of
// chips, of which there is one edition; the vendors' services; and then the
// files for all else.
func fetchersOf(c config.Collateral, trusted []*x509.Certificate) ([]collateral.Fetcher, error) {
	var first, last []collateral.Fetcher
	for _, dir := range c.Files {
		f, err := collateral.NewFiles(dir, trusted)
		if err != nil {
			return nil, err
		}
		first, last = append(first, f.Chips()), append(last, f)
	}
	if c.Intel.Service != "" {
		web, err := webConfig(c.Intel.CAFile, c.Intel.InsecureHTTP)
		if err != nil {
			return nil, err
		}
		f, err := collateral.Intel(collateral.IntelConfig{
			Base: c.Intel.Service, RootCRL: c.Intel.RootCRL, Early: c.Intel.Early, Web: web,
		})
		if err != nil {
			return nil, err
		}
		first = append(first, f)
	}
	if c.AMD.Service != "" {
		web, err := webConfig(c.AMD.CAFile, c.AMD.InsecureHTTP)
		if err != nil {
			return nil, err
		}
		f, err := collateral.AMD(c.AMD.Service, web)
		if err != nil {
			return nil, err
		}
		first = append(first, f)
	}
	return append(first, last...), nil
}

func webConfig(caFile string, insecureHTTP bool) (collateral.WebConfig, error) {
	c := collateral.WebConfig{InsecureHTTP: insecureHTTP}
	if caFile == "" {
		return c, nil
	}
	raw, err := readFile(caFile)
	if err != nil {
		return c, fmt.Errorf("ca_file: %w", err)
	}
	if c.CA, err = x509.SystemCertPool(); err != nil {
		return c, fmt.Errorf("ca_file: %w", err)
	}
	if !c.CA.AppendCertsFromPEM(raw) {
		return c, fmt.Errorf("ca_file: %s has no certificates", caFile)
	}
	return c, nil
}
