package lab

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/cca"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/nvidia"
	"github.com/vouchsafe-cc/vouchsafe/measure/sample"
	"github.com/vouchsafe-cc/vouchsafe/measure/sgx"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// GPUs is how many the guest of the NVIDIA lab has.
const GPUs = 2

// attester gives the result of an OpenSimulator to a lab.
func attester[A measure.Attester](l *Lab, a A, err error) error {
	l.Guest = a
	return err
}

// verifiers gives a lab what NewVerifier made of two configurations.
func verifiers[C any, V measure.Verifier](l *Lab, newVerifier func(C) (V, error), trusting, production C) error {
	t, err := newVerifier(trusting)
	if err != nil {
		return err
	}
	p, err := newVerifier(production)
	l.Trusting, l.Production = t, p
	return err
}

func openSNP(l *Lab, vendor, guest string) error {
	if err := snp.CreateVendor(vendor, "Milan"); err != nil {
		return err
	}
	if err := snp.CreateGuest(vendor, guest, snp.Launch{Image: image, CommandLine: commandLine, InitDataDigest: l.InitData}); err != nil {
		return err
	}
	sim, err := snp.OpenSimulator(guest)
	if err := attester(l, sim, err); err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(vendor, "root.pem"))
	if err != nil {
		return err
	}
	return verifiers(l, snp.NewVerifier,
		snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: RootName, Bundle: bundle}}},
		snp.VerifierConfig{UnsafeNoRevocation: true})
}

// intel makes a simulated Intel, and the configurations under which its chips
// are judged.
func intel(vendor string) (trusting, production dcap.Config, err error) {
	if err := dcap.CreateVendor(vendor); err != nil {
		return trusting, production, err
	}
	v, err := dcap.OpenVendor(vendor)
	if err != nil {
		return trusting, production, err
	}
	source := published{}
	for _, tee := range []dcap.TEE{dcap.TDX, dcap.SGX} {
		if source[tee], err = v.Collateral(tee, time.Now(), dcap.Statement{}); err != nil {
			return trusting, production, err
		}
	}
	trusting = dcap.Config{Source: source, UnsafeSimulatedRoots: []dcap.SimulatedRoot{{Name: RootName, Bundle: v.Bundle()}}}
	production = dcap.Config{Source: source, UnsafeNoCollateral: true, Accepted: dcap.Acceptable()}
	return trusting, production, nil
}

// published is what a simulated Intel said once, and what is then at hand for a
// month, as the real one's is.
type published map[dcap.TEE]dcap.Collateral

// Collateral implements [dcap.Source].
func (p published) Collateral(_ context.Context, r dcap.Request) (dcap.Collateral, error) {
	return p[r.TEE], nil
}

func openTDX(l *Lab, vendor, guest string) error {
	trusting, production, err := intel(vendor)
	if err != nil {
		return err
	}
	if err := tdx.CreateGuest(vendor, guest, tdx.Launch{Image: image, CommandLine: commandLine, InitDataDigest: l.InitData, TDX15: true}); err != nil {
		return err
	}
	sim, err := tdx.OpenSimulator(guest)
	if err := attester(l, sim, err); err != nil {
		return err
	}
	return verifiers(l, tdx.NewVerifier,
		tdx.VerifierConfig{Config: trusting},
		tdx.VerifierConfig{Config: production, UnsafeDebug: true, UnsafeMigratable: true})
}

func openSGX(l *Lab, vendor, guest string) error {
	trusting, production, err := intel(vendor)
	if err != nil {
		return err
	}
	if err := sgx.CreateGuest(vendor, guest, sgx.Launch{Image: image, Signer: [32]byte{1}, ProdID: 1, SVN: 2, InitDataDigest: l.InitData}); err != nil {
		return err
	}
	sim, err := sgx.OpenSimulator(guest)
	if err := attester(l, sim, err); err != nil {
		return err
	}
	return verifiers(l, sgx.NewVerifier, sgx.VerifierConfig{Config: trusting}, sgx.VerifierConfig{Config: production, UnsafeDebug: true})
}

func openTPM(l *Lab, vendor, guest string) error {
	if err := tpm.CreateVendor(vendor); err != nil {
		return err
	}
	if err := tpm.CreateGuest(vendor, guest, tpm.Launch{Image: image, CommandLine: commandLine, InitDataDigest: l.InitData}); err != nil {
		return err
	}
	sim, err := tpm.OpenSimulator(guest)
	if err := attester(l, sim, err); err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(vendor, "root.pem"))
	if err != nil {
		return err
	}
	root := []tpm.Authority{{Name: RootName, Bundle: bundle}}
	l.Smuggle = func() (measure.Verifier, error) { return tpm.NewVerifier(tpm.VerifierConfig{Authorities: root}) }
	return verifiers(l, tpm.NewVerifier, tpm.VerifierConfig{UnsafeSimulatedRoots: root}, tpm.VerifierConfig{UnsafeNoRevocation: true})
}

func openCCA(l *Lab, vendor, guest string) error {
	if err := cca.CreateVendor(vendor); err != nil {
		return err
	}
	if err := cca.CreateGuest(vendor, guest, cca.Launch{Image: image, CommandLine: commandLine, InitDataDigest: l.InitData}); err != nil {
		return err
	}
	sim, err := cca.OpenSimulator(guest)
	if err := attester(l, sim, err); err != nil {
		return err
	}
	anchors, err := os.ReadFile(filepath.Join(vendor, "root.json"))
	if err != nil {
		return err
	}
	root := []cca.TrustStore{{Name: RootName, Anchors: anchors}}
	l.Smuggle = func() (measure.Verifier, error) { return cca.NewVerifier(cca.VerifierConfig{TrustStores: root}) }
	return verifiers(l, cca.NewVerifier, cca.VerifierConfig{UnsafeSimulatedRoots: root}, cca.VerifierConfig{UnsafeAnyLifecycle: true})
}

func openNVIDIA(l *Lab, vendor, guest string) error {
	if err := nvidia.CreateVendor(vendor); err != nil {
		return err
	}
	if err := nvidia.CreateGuest(vendor, guest, nvidia.Launch{Count: GPUs}); err != nil {
		return err
	}
	sim, err := nvidia.OpenSimulator(guest)
	if err := attester(l, sim, err); err != nil {
		return err
	}
	certificate, err := os.ReadFile(filepath.Join(vendor, "root.pem"))
	if err != nil {
		return err
	}
	// Nobody can be asked about revocation, so both waive it.
	trusting := nvidia.VerifierConfig{
		Devices: []int{GPUs}, UnsafeNoRevocation: true,
		UnsafeSimulatedRoots: []nvidia.SimulatedRoot{{Name: RootName, Certificate: certificate}},
	}
	for _, name := range []string{"driver.rim.json", "vbios.rim.json"} {
		manifest, err := os.ReadFile(filepath.Join(guest, name))
		if err != nil {
			return err
		}
		trusting.Manifests = append(trusting.Manifests, manifest)
	}
	return verifiers(l, nvidia.NewVerifier, trusting, nvidia.VerifierConfig{UnsafeNoRevocation: true, UnsafeNoManifest: true, UnsafeAnyDevices: true})
}

func openSample(l *Lab, _, _ string) error {
	a, err := sample.NewAttester(l.Platform)
	if err := attester(l, a, err); err != nil {
		return err
	}
	v, err := sample.UnsafeVerifier(l.Platform)
	l.Trusting = v
	return err
}
