package broker

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/sgx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

func openTDX(v config.Verifier, t tools) ([]measure.Verifier, error) {
	if !v.TDX.Enabled {
		return nil, nil
	}
	c, err := tdxConfig(v.TDX, t)
	if err != nil {
		return nil, err
	}
	return only(tdx.NewVerifier(c))
}

// tdxConfig is what the configuration says of TDX, wherever a quote of it comes
// from.
func tdxConfig(c config.TDX, t tools) (tdx.VerifierConfig, error) {
	d, err := dcapConfig(c.Intel, t)
	return tdx.VerifierConfig{Config: d, UnsafeDebug: c.InsecureDebug, UnsafeMigratable: c.InsecureMigratable}, err
}

func openSGX(v config.Verifier, t tools) ([]measure.Verifier, error) {
	c := v.SGX
	if !c.Enabled {
		return nil, nil
	}
	d, err := dcapConfig(c.Intel, t)
	if err != nil {
		return nil, err
	}
	return only(sgx.NewVerifier(sgx.VerifierConfig{Config: d, UnsafeDebug: c.InsecureDebug}))
}

var errNoCollateral = errors.New("nothing can be accepted without collateral: set collateral.enabled and where it comes from, or insecure_no_collateral")

// dcapConfig is what TDX and SGX have in common.
func dcapConfig(i config.Intel, t tools) (dcap.Config, error) {
	c := dcap.Config{
		UnsafeNoCollateral: i.InsecureNoCollateral, Now: t.now, Grace: t.grace, MinEvaluation: uint32(i.MinTCBEvaluation),
	}
	switch {
	case t.published != nil:
		c.Source = t.published
	case !i.InsecureNoCollateral:
		return c, errNoCollateral
	}
	for _, name := range i.AcceptedTCB {
		s, err := dcap.ParseStatus(name)
		if err != nil {
			return c, err
		}
		c.Accepted = append(c.Accepted, s)
	}
	var err error
	c.UnsafeSimulatedRoots, err = intelRoots(i.InsecureSimulatedRoots)
	return c, err
}

func intelRoots(named []config.SimulatedRoot) ([]dcap.SimulatedRoot, error) {
	var out []dcap.SimulatedRoot
	err := readRoots(named, func(name string, bundle []byte) {
		out = append(out, dcap.SimulatedRoot{Name: name, Bundle: bundle})
	})
	return out, err
}

// intelAuthorities are Intel's root, and the simulated ones of all platforms
// that collateral of this form judges. The same vendor may stand in several
// tables.
func intelAuthorities(v config.Verifier) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, table := range []struct {
		name  string
		roots []config.SimulatedRoot
	}{{"tdx", v.TDX.InsecureSimulatedRoots}, {"az-tdx-vtpm", v.AzTDXvTPM.InsecureSimulatedRoots}, {"sgx", v.SGX.InsecureSimulatedRoots}} {
		roots, err := intelRoots(table.roots)
		if err != nil {
			return nil, fmt.Errorf("verifier.%s: %w", table.name, err)
		}
		all, err := dcap.Authorities(roots)
		if err != nil {
			return nil, fmt.Errorf("verifier.%s: %w", table.name, err)
		}
		out = append(out, all...)
	}
	return out, nil
}
