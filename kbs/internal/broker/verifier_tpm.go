package broker

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

func openTPM(v config.Verifier, t tools) ([]measure.Verifier, error) {
	c := v.TPM
	if !c.Enabled {
		return nil, nil
	}
	vc := tpm.VerifierConfig{UnsafeSelfDeclaredKeys: c.InsecureSelfDeclaredKeys, UnsafeNoRevocation: c.InsecureNoRevocation, Now: t.now}
	for _, f := range c.EnrolledKeys {
		raw, err := readFile(f.Path)
		if err != nil {
			return nil, fmt.Errorf("enrolled_keys: %w", err)
		}
		vc.Enrolled = append(vc.Enrolled, tpm.EnrolledKeys{Name: f.Name, Keys: raw})
	}
	for _, f := range c.Authorities {
		raw, err := readFile(f.Path)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		vc.Authorities = append(vc.Authorities, tpm.Authority{Name: f.Name, Bundle: raw})
	}
	err := readRoots(c.InsecureSimulatedRoots, func(name string, bundle []byte) {
		vc.UnsafeSimulatedRoots = append(vc.UnsafeSimulatedRoots, tpm.Authority{Name: name, Bundle: bundle})
	})
	if err != nil {
		return nil, err
	}
	return only(tpm.NewVerifier(vc))
}
