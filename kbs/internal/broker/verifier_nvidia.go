package broker

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/nvidia"
)

func openNVIDIA(v config.Verifier, t tools) ([]measure.Verifier, error) {
	c := v.NVIDIA
	if !c.Enabled {
		return nil, nil
	}
	vc := nvidia.VerifierConfig{
		Devices: c.Devices, UnsafeNoRevocation: c.InsecureNoRevocation, UnsafeNoManifest: c.InsecureNoManifest,
		UnsafeAnyDevices: c.InsecureAnyDevices, Now: t.now,
	}
	for _, path := range c.Manifests {
		raw, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		vc.Manifests = append(vc.Manifests, raw)
	}
	err := readRoots(c.InsecureSimulatedRoots, func(name string, certificate []byte) {
		vc.UnsafeSimulatedRoots = append(vc.UnsafeSimulatedRoots, nvidia.SimulatedRoot{Name: name, Certificate: certificate})
	})
	if err != nil {
		return nil, err
	}
	return only(nvidia.NewVerifier(vc))
}
