package main

import (
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

const simHelp = `Sim plays the hardware: a vendor with its root, chips under it, and one guest on
each chip. Use it to try everything on a laptop, and in tests. Each platform has
its own simulator; vendor, guest and evidence alone are those of snp.

Simulated evidence has the real format, a real signature and a real chain; only
the root is yours. Anyone who holds the vendor's keys can forge any evidence
under that root, so no production verifier should name it.`

// simulators lists the platforms that can be simulated, each a command with the
// platform's name. Each lives in a file of its own, sim_<platform>.go.
func (c *cli) simulators() []*cobra.Command {
	return []*cobra.Command{
		c.simSNPCommand(),
		c.simTDXCommand(),
		c.simSGXCommand(),
		c.simAzureCommand(measure.AzSNPvTPM, measure.SNP),
		c.simAzureCommand(measure.AzTDXvTPM, measure.TDX),
		c.simTPMCommand(),
		c.simCCACommand(),
		c.simNVIDIACommand(),
	}
}

func (c *cli) simCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Make simulated vendors, and guests on their chips",
		Long:  simHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.simVendorCommand(), c.simGuestCommand(), c.simEvidenceCommand())
	cmd.AddCommand(c.simulators()...)
	return cmd
}
