package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/qemu"
)

const machineHelp = `Machine asks QEMU what it will tell the firmware of a guest about its machine:
the ACPI tables and what else a firmware measures of fw_cfg. They depend on
QEMU's version, the number of vCPUs, the size of memory and every device, so the
arguments behind -- must be those of the guest, with two exceptions: no -accel
or -enable-kvm, and no TEE (confidential-guest-support, sev-snp-guest, tdx-guest),
as neither is needed: the processors of this machine never run. What a TEE's
machine has by itself is to be said: smm=off, for a TD also
kernel-irqchip=split,pic=off.

The answer is written to --out, for 'measure predict --machine'.`

const machineExample = `  measure machine --edition 202502 --out machine -- \
      -machine q35,smm=off -cpu EPYC-v4 -smp 4 -m 2G -nodefaults -device virtio-serial-pci`

func (c *cli) machineCommand() *cobra.Command {
	var program, edition, out string
	var base uint32
	cmd := &cobra.Command{
		Use:     "machine --edition TAG --out DIR -- QEMU'S ARGUMENTS",
		Short:   "Ask QEMU for the ACPI tables of a machine, without running it",
		Long:    machineHelp,
		Example: machineExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := boot.ParseEdition(edition)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("pci-express-base") {
				base = qemu.ConfigurationBase(e)
			}
			m, err := qemu.Ask(cmd.Context(), qemu.Question{Program: program, Arguments: args, ConfigurationBase: base})
			if err != nil {
				return err
			}
			n, err := m.Processors()
			if err != nil {
				return err
			}
			if err := m.Write(out); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: wrote %s: a machine with %d vCPUs\n", out, n)
			return nil
		},
	}
	s := cmd.Flags()
	s.StringVar(&program, "qemu", "qemu-system-x86_64", "`PROGRAM` that will run the guest")
	s.StringVar(&edition, "edition", "", "`TAG` of edk2 that the firmware was built from, as for predict")
	s.StringVar(&out, "out", "", "`DIR` to write; must not exist yet")
	s.Uint32Var(&base, "pci-express-base", 0, "`ADDRESS` at which the firmware has the configuration space of PCI Express (default that of the edition)")
	_ = cmd.MarkFlagRequired("edition")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}
