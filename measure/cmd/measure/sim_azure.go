package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// simAzureCommand simulates one of Azure's platforms; hardware is the platform
// below it, whose simulator makes the vendors.
func (c *cli) simAzureCommand(p, hardware measure.Platform) *cobra.Command {
	cmd := &cobra.Command{
		Use:   string(p),
		Short: fmt.Sprintf("Simulate Azure's confidential VMs on %s", hardware),
		Long: fmt.Sprintf(`%s simulates Azure's paravisor, and a guest with a vTPM above it, on
the chip of a simulated vendor: make that with 'measure sim %s vendor'.`, p, hardware),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	guest := c.bootCommand(func(vendor, out string, l tpm.Launch) error { return azure.CreateGuest(p, vendor, out, l) })
	guest.Short = "Boot a guest with a vTPM on a new chip"
	guest.Long = `Guest boots a simulated guest: the hardware measures the paravisor, and the
paravisor's vTPM the guest's image and command line. The attestation key of the
vTPM is bound to the hardware's report. It prints the value of PCR 11.`
	guest.Example = fmt.Sprintf("  measure sim %s guest --vendor ./vendor --out ./guest --image ./agent --cmdline quiet", p)
	evidence := c.guestEvidenceCommand(func(dir string) (measure.Attester, error) { return azure.OpenSimulator(dir) })
	evidence.Example = fmt.Sprintf("  measure sim %s evidence ./guest --report-data 00ff > evidence.json", p)
	cmd.AddCommand(guest, evidence)
	return cmd
}
