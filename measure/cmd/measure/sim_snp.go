package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

func (c *cli) simSNPCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snp",
		Short: "Simulate AMD SEV-SNP",
		Long:  "Snp simulates AMD SEV-SNP: a vendor for one generation of processors, guests on\nits chips, and their evidence.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.simVendorCommand(), c.simGuestCommand(), c.simEvidenceCommand())
	return cmd
}

func (c *cli) simVendorCommand() *cobra.Command {
	generation := oneOf("Genoa", "Milan", "Turin")
	cmd := &cobra.Command{
		Use:   "vendor DIR",
		Short: "Make a vendor: root, signing key and revocation list",
		Long: `Vendor makes a simulated AMD in DIR, which must not hold one yet. It takes some
seconds, for its RSA keys have 4096 bits as AMD's do.

  ark.key, ask.key   the vendor's keys, readable by you only
  root.pem           what a verifier needs to trust this vendor: the root and
                     signing certificates and an empty revocation list`,
		Example: "  measure sim vendor ./vendor",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := snp.CreateVendor(args[0], generation.value); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: wrote %s; a verifier trusts it only if you name it\n", filepath.Join(args[0], "root.pem"))
			return nil
		},
	}
	cmd.Flags().Var(generation, "product", "generation of the processors")
	return cmd
}

func (c *cli) simGuestCommand() *cobra.Command {
	var (
		f           guestFlags
		vendor, out string
		policy      uint64
	)
	cmd := &cobra.Command{
		Use:   "guest --vendor DIR --out DIR --image FILE --cmdline STRING|@FILE",
		Short: "Launch a guest on a new chip of a vendor",
		Long: `Guest launches a simulated guest: it measures the image and the command line,
as 'measure predict' does, and makes a new chip with its own key. It prints the
measurement. The directory --out then stands for the device inside the guest:
who holds it can make evidence of this guest.`,
		Example: `  measure sim guest --vendor ./vendor --out ./guest --image ./agent --cmdline "quiet" --init-data initdata.toml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := c.launch(f)
			if err != nil {
				return err
			}
			l.Policy = policy
			if err := snp.CreateGuest(vendor, out, l); err != nil {
				return err
			}
			m, err := snp.Predict(l)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, hex.EncodeToString(m[:]))
			return err
		},
	}
	f.add(cmd)
	s := cmd.Flags()
	s.StringVar(&vendor, "vendor", "", "`DIR` of the vendor")
	s.StringVar(&out, "out", "", "`DIR` to write the guest to; must not hold one yet")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document of the guest")
	s.Uint64Var(&policy, "policy", snp.DefaultPolicy, "guest policy `BITS`; 0xb0000 allows the host to debug the guest")
	inHex(cmd, "policy")
	_ = cmd.MarkFlagRequired("vendor")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func (c *cli) simEvidenceCommand() *cobra.Command {
	var reportData string
	cmd := &cobra.Command{
		Use:   "evidence DIR --report-data HEX",
		Short: "Ask a guest's simulated processor for evidence",
		Long: `Evidence prints fresh evidence of the guest in DIR, in the JSON that the KBS
protocol carries. The report is bound to the report data: at most 64 bytes, to
which zeros are added.`,
		Example: "  measure sim evidence ./guest --report-data 00ff > evidence.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.simEvidence(cmd.Context(), args[0], reportData)
		},
	}
	cmd.Flags().StringVar(&reportData, "report-data", "", "`HEX` to bind the report to")
	_ = cmd.MarkFlagRequired("report-data")
	return cmd
}

func (c *cli) simEvidence(ctx context.Context, dir, reportData string) error {
	digest, err := parseReportData(reportData)
	if err != nil {
		return err
	}
	data, err := measure.NewReportData(digest)
	if err != nil {
		return err
	}
	s, err := snp.OpenSimulator(dir)
	if err != nil {
		return err
	}
	ev, err := s.Evidence(ctx, data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", ev.Data)
	return err
}
