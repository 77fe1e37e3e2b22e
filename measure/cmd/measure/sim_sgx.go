package main

import (
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/sgx"
)

func (c *cli) simSGXCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sgx",
		Short: "Simulate Intel SGX",
		Long: `Sgx simulates Intel SGX: a vendor, enclaves on its chips, their quotes, and what
the vendor says its platforms are worth.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	evidence := c.guestEvidenceCommand(func(dir string) (measure.Attester, error) { return sgx.OpenSimulator(dir) })
	evidence.Example = "  measure sim sgx evidence ./enclave --report-data 00ff > evidence.json"
	cmd.AddCommand(c.simIntelVendorCommand(dcap.SGX), c.simIntelCollateralCommand(dcap.SGX), c.simSGXGuestCommand(), evidence)
	return cmd
}

func (c *cli) simSGXGuestCommand() *cobra.Command {
	var (
		l                            sgx.Launch
		vendor, out, image, initData string
		signer                       string
		chip                         chipFlags
	)
	cmd := &cobra.Command{
		Use:   "guest --vendor DIR --out DIR --image FILE",
		Short: "Start an enclave on a new chip of a vendor",
		Long: `Guest starts a simulated enclave: it measures the image and makes a new chip with
its own key. It prints MRENCLAVE. Who holds the directory --out can make evidence
of this enclave.`,
		Example: `  measure sim sgx guest --vendor ./vendor --out ./enclave --image ./enclave.so --init-data initdata.toml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := c.readEnclave(&l, image, initData, signer); err != nil {
				return err
			}
			l.Chip = chip.options()
			enclave, err := sgx.Predict(l)
			if err != nil {
				return err
			}
			if err := sgx.CreateGuest(vendor, out, l); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, hex.EncodeToString(enclave[:]))
			return err
		},
	}
	s := cmd.Flags()
	s.StringVar(&vendor, "vendor", "", "`DIR` of the vendor")
	s.StringVar(&out, "out", "", "`DIR` to write the enclave to; must not hold one yet")
	s.StringVar(&image, "image", "", "`FILE` that runs in the enclave")
	s.StringVar(&initData, "init-data", "", "`FILE` with the init-data document, whose digest goes into CONFIGID")
	s.StringVar(&signer, "signer", "", "`HEX` of MRSIGNER, 32 bytes")
	s.Uint16Var(&l.ProdID, "prod-id", 0, "`NUMBER` of the signer's product")
	s.Uint16Var(&l.SVN, "svn", 0, "security version `NUMBER` of the enclave")
	s.BoolVar(&l.Debug, "debug", false, "let the host read and write the enclave")
	chip.add(cmd, tcbUpToDate, tcbOldPlatform, tcbOldQE, tcbUnknown)
	for _, name := range []string{"vendor", "out", "image"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// readEnclave reads what the flags name.
func (c *cli) readEnclave(l *sgx.Launch, image, initData, signer string) error {
	var err error
	if l.Image, err = c.readFile(image); err != nil {
		return err
	}
	if initData != "" {
		doc, err := c.initData(initData)
		if err != nil {
			return err
		}
		l.InitDataDigest = doc.Digest()
	}
	if signer == "" {
		return nil
	}
	b, err := hex.DecodeString(signer)
	if err != nil || len(b) != len(l.Signer) {
		return fmt.Errorf("--signer wants the hex of %d bytes", len(l.Signer))
	}
	copy(l.Signer[:], b)
	return nil
}
