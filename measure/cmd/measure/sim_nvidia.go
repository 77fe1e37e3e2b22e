package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/nvidia"
)

func (c *cli) simNVIDIACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nvidia",
		Short: "Simulate NVIDIA GPUs",
		Long:  "Nvidia simulates NVIDIA's GPUs: a device identity authority, GPUs under it, and\ntheir attestation reports.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	evidence := c.guestEvidenceCommand(func(dir string) (measure.Attester, error) { return nvidia.OpenSimulator(dir) })
	evidence.Example = "  measure sim nvidia evidence ./gpus --report-data 00ff > evidence.json"
	cmd.AddCommand(c.simNVIDIAVendorCommand(), c.simNVIDIAGuestCommand(), evidence)
	return cmd
}

func (c *cli) simNVIDIAVendorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vendor DIR",
		Short: "Make a device identity authority",
		Long: `Vendor makes a simulated device identity authority in DIR, which must not hold
one yet.

  root.key   the authority's key, readable by you only
  root.pem   what a verifier needs to trust it: its certificate`,
		Example: "  measure sim nvidia vendor ./authority",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := nvidia.CreateVendor(args[0]); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: wrote %s; a verifier trusts it only if you name it\n", filepath.Join(args[0], "root.pem"))
			return nil
		},
	}
}

func (c *cli) simNVIDIAGuestCommand() *cobra.Command {
	var (
		l           nvidia.Launch
		vendor, out string
	)
	arch := oneOf(string(nvidia.Hopper), string(nvidia.Blackwell))
	cmd := &cobra.Command{
		Use:   "guest --vendor DIR --out DIR",
		Short: "Make the GPUs of a guest",
		Long: `Guest makes simulated GPUs in --out, and the manifests of their driver and VBIOS,
driver.rim.json and vbios.rim.json, which a verifier compares measurements with.
Who holds the directory can make evidence of these GPUs.`,
		Example: "  measure sim nvidia guest --vendor ./authority --out ./gpus --count 8",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l.Arch = nvidia.Arch(arch.value)
			return nvidia.CreateGuest(vendor, out, l)
		},
	}
	s := cmd.Flags()
	s.StringVar(&vendor, "vendor", "", "`DIR` of the authority")
	s.StringVar(&out, "out", "", "`DIR` to write the GPUs to; must not hold any yet")
	s.Var(arch, "arch", "kind of the GPUs")
	s.IntVar(&l.Count, "count", 1, "`NUMBER` of GPUs")
	s.StringVar(&l.Driver, "driver", "550.90.07", "`VERSION` of the driver")
	s.StringVar(&l.VBIOS, "vbios", "96.00.9f.00.01", "`VERSION` of the VBIOS")
	_ = cmd.MarkFlagRequired("vendor")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}
