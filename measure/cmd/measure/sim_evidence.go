package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// guestEvidenceCommand asks a simulated guest for evidence: the same command
// for every simulator that opens a directory.
func (c *cli) guestEvidenceCommand(open func(dir string) (measure.Attester, error)) *cobra.Command {
	var reportData string
	cmd := &cobra.Command{
		Use:   "evidence DIR --report-data HEX",
		Short: "Ask a simulated guest for evidence",
		Long: `Evidence prints fresh evidence of the guest in DIR, in the JSON that the KBS
protocol carries. It is bound to the report data: at most 64 bytes, fitted into
the platform's field as the guests of today's stack do.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			digest, err := parseReportData(reportData)
			if err != nil {
				return err
			}
			attester, err := open(args[0])
			if err != nil {
				return err
			}
			ev, err := measure.EvidenceOver(cmd.Context(), attester, digest)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s\n", ev.Data)
			return err
		},
	}
	cmd.Flags().StringVar(&reportData, "report-data", "", "`HEX` to bind the evidence to")
	_ = cmd.MarkFlagRequired("report-data")
	return cmd
}
