package main

import (
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

func (c *cli) simTPMCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tpm",
		Short: "Simulate a TPM 2.0",
		Long: `Tpm simulates TPMs: a manufacturer that also certifies attestation keys, guests
with a TPM each, and their quotes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	evidence := c.guestEvidenceCommand(func(dir string) (measure.Attester, error) { return tpm.OpenSimulator(dir) })
	evidence.Example = "  measure sim tpm evidence ./guest --report-data 00ff > evidence.json"
	cmd.AddCommand(c.simTPMVendorCommand(), c.simTPMGuestCommand(), evidence)
	return cmd
}

func (c *cli) simTPMVendorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vendor DIR",
		Short: "Make a manufacturer of TPMs",
		Long: `Vendor makes a simulated manufacturer in DIR, which must not hold one yet.

  ca.key     the manufacturer's key, readable by you only
  root.pem   what a verifier needs to trust its attestation keys: the
             certificate and an empty revocation list`,
		Example: "  measure sim tpm vendor ./vendor",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := tpm.CreateVendor(args[0]); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: wrote %s; a verifier trusts it only if you name it\n", filepath.Join(args[0], "root.pem"))
			return nil
		},
	}
}

func (c *cli) simTPMGuestCommand() *cobra.Command {
	cmd := c.bootCommand(tpm.CreateGuest)
	cmd.Short = "Boot a guest with a TPM of a manufacturer"
	cmd.Long = `Guest boots a simulated guest: its TPM measures the image and the command line,
and has an attestation key that the manufacturer certifies. ak.pem in the
directory is that key, for a verifier in which guests are enrolled one by one.
It prints the value of PCR 11.`
	cmd.Example = `  measure sim tpm guest --vendor ./vendor --out ./guest --image ./agent --cmdline "quiet" --init-data initdata.toml`
	return cmd
}

// bootCommand starts a guest that measures its boot into a TPM, and prints PCR
// 11, in which image and command line are.
func (c *cli) bootCommand(create func(vendor, out string, l tpm.Launch) error) *cobra.Command {
	var (
		f           guestFlags
		vendor, out string
	)
	cmd := &cobra.Command{
		Use:  "guest --vendor DIR --out DIR --image FILE --cmdline STRING|@FILE",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			in, err := c.launch(f)
			if err != nil {
				return err
			}
			l := tpm.Launch{Image: in.Image, CommandLine: in.CommandLine, InitDataDigest: in.InitDataDigest}
			if err := create(vendor, out, l); err != nil {
				return err
			}
			pcrs, err := tpm.Predict(l)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, hex.EncodeToString(pcrs[tpm.KernelPCR]))
			return err
		},
	}
	f.add(cmd)
	s := cmd.Flags()
	s.StringVar(&vendor, "vendor", "", "`DIR` of the vendor")
	s.StringVar(&out, "out", "", "`DIR` to write the guest to; must not hold one yet")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document of the guest; its algorithm must be sha256")
	_ = cmd.MarkFlagRequired("vendor")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}
