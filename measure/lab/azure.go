package lab

import (
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// openAzure makes the lab of the hardware, and puts a guest of Azure's and its
// verifiers in place of those of the hardware.
func openAzure(hardware func(l *Lab, vendor, guest string) error) func(l *Lab, vendor, guest string) error {
	return func(l *Lab, vendor, guest string) error {
		below := new(Lab)
		if err := hardware(below, vendor, guest+"-hardware"); err != nil {
			return err
		}
		if err := azure.CreateGuest(l.Platform, vendor, guest, tpm.Launch{Image: image, CommandLine: commandLine, InitDataDigest: l.InitData}); err != nil {
			return err
		}
		sim, err := azure.OpenSimulator(guest)
		if err := attester(l, sim, err); err != nil {
			return err
		}
		return verifiers(l, azure.NewVerifier, below.Trusting, below.Production)
	}
}
