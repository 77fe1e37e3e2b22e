package ctl

import (
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/version"
)

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of kbsctl",
		Example: "  kbsctl version -o json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := version.Here()
			if c.flags.output != "table" {
				return c.printData(b)
			}
			return c.printf("%s\n", b.Line("kbsctl"))
		},
	}
}
