package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/version"
)

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.out, version.Here().Line("measure"))
			return err
		},
	}
}
