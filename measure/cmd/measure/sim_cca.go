package main

import (
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/cca"
)

func (c *cli) simCCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cca",
		Short: "Simulate Arm CCA",
		Long: `Cca simulates Arm's Confidential Compute Architecture: a machine with its own
key, realms on it, and their tokens. Such machines have no vendor's root above
them: a verifier trusts the machine itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	evidence := c.guestEvidenceCommand(func(dir string) (measure.Attester, error) { return cca.OpenSimulator(dir) })
	evidence.Example = "  measure sim cca evidence ./realm --report-data 00ff > evidence.json"
	cmd.AddCommand(c.simCCAVendorCommand(), c.simCCAGuestCommand(), evidence)
	return cmd
}

func (c *cli) simCCAVendorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vendor DIR",
		Short: "Make a machine and the trust store that names it",
		Long: `Vendor makes a simulated machine in DIR, which must not hold one yet.

  cpak.key    the machine's key, readable by you only
  root.json   what a verifier needs to trust this machine: a trust store`,
		Example: "  measure sim cca vendor ./machine",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := cca.CreateVendor(args[0]); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: wrote %s; a verifier trusts it only if you name it\n", filepath.Join(args[0], "root.json"))
			return nil
		},
	}
}

func (c *cli) simCCAGuestCommand() *cobra.Command {
	var (
		f           guestFlags
		vendor, out string
		lifecycle   uint16
	)
	cmd := &cobra.Command{
		Use:   "guest --vendor DIR --out DIR --image FILE --cmdline STRING|@FILE",
		Short: "Start a realm on a machine",
		Long: `Guest starts a simulated realm: it measures the image and the command line, makes
a key for the realm, and lets the machine vouch for it. It prints the initial
measurement. The directory --out then stands for the realm management monitor:
who holds it can make evidence of this realm.`,
		Example: `  measure sim cca guest --vendor ./machine --out ./realm --image ./agent --cmdline "quiet" --init-data initdata.toml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			in, err := c.launch(f)
			if err != nil {
				return err
			}
			l := cca.Launch{Image: in.Image, CommandLine: in.CommandLine, InitDataDigest: in.InitDataDigest, Lifecycle: lifecycle}
			rim, err := cca.Predict(l)
			if err != nil {
				return err
			}
			if err := cca.CreateGuest(vendor, out, l); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, hex.EncodeToString(rim[:]))
			return err
		},
	}
	f.add(cmd)
	s := cmd.Flags()
	s.StringVar(&vendor, "vendor", "", "`DIR` of the machine")
	s.StringVar(&out, "out", "", "`DIR` to write the realm to; must not hold one yet")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document of the realm")
	s.Uint16Var(&lifecycle, "lifecycle", 0x3000, "lifecycle `STATE` of the machine; 0x5000 is one whose debugger is open")
	inHex(cmd, "lifecycle")
	_ = cmd.MarkFlagRequired("vendor")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}
