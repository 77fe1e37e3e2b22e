package broker

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/cca"
)

func openCCA(v config.Verifier, _ tools) ([]measure.Verifier, error) {
	c := v.CCA
	if !c.Enabled {
		return nil, nil
	}
	vc := cca.VerifierConfig{UnsafeAnyLifecycle: c.InsecureAnyLifecycle}
	for _, s := range c.TrustStores {
		anchors, err := readFile(s.Path)
		if err != nil {
			return nil, fmt.Errorf("trust_stores: %w", err)
		}
		vc.TrustStores = append(vc.TrustStores, cca.TrustStore{Name: s.Name, Anchors: anchors})
	}
	err := readRoots(c.InsecureSimulatedRoots, func(name string, anchors []byte) {
		vc.UnsafeSimulatedRoots = append(vc.UnsafeSimulatedRoots, cca.TrustStore{Name: name, Anchors: anchors})
	})
	if err != nil {
		return nil, err
	}
	return only(cca.NewVerifier(vc))
}
