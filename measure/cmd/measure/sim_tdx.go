package main

import (
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

func (c *cli) simTDXCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tdx",
		Short: "Simulate Intel TDX",
		Long: `Tdx simulates Intel TDX: a vendor, guests on its chips, their quotes with the
event log of their boot, and what the vendor says its platforms are worth.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	evidence := c.guestEvidenceCommand(func(dir string) (measure.Attester, error) { return tdx.OpenSimulator(dir) })
	evidence.Example = "  measure sim tdx evidence ./guest --report-data 00ff > evidence.json"
	cmd.AddCommand(c.simIntelVendorCommand(dcap.TDX), c.simIntelCollateralCommand(dcap.TDX), c.simTDXGuestCommand(), evidence)
	return cmd
}

// tdFlags are those of a simulated TD beside what it is started from.
type tdFlags struct {
	vendor, out              string
	prediction               string
	debug, migratable, tdx10 bool
	chip                     chipFlags
}

func (c *cli) simTDXGuestCommand() *cobra.Command {
	var (
		f guestFlags
		t tdFlags
	)
	cmd := &cobra.Command{
		Use:   "guest --vendor DIR --out DIR --image FILE --cmdline STRING|@FILE | --prediction FILE",
		Short: "Launch a TD on a new chip of a vendor",
		Long: `Guest launches a simulated TD: it measures the image into MRTD and RTMR1 and the
command line into RTMR2, logs both, and makes a new chip with its own key. It
prints MRTD. The directory --out then stands for the TDX module and the quoting
enclave: who holds it can make evidence of this TD.

With --prediction it stands for a virtual machine: it shows the registers and the
event log that 'measure predict -o json' predicts for the one boot in FILE.`,
		Example: `  measure sim tdx guest --vendor ./vendor --out ./guest --image ./agent --cmdline "quiet" --init-data initdata.toml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l := t.launch()
			if err := c.startTD(&l, f, t.prediction); err != nil {
				return err
			}
			p, err := tdx.Simulate(l)
			if err != nil {
				return err
			}
			if err := tdx.CreateGuest(t.vendor, t.out, l); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, hex.EncodeToString(p.MRTD[:]))
			return err
		},
	}
	f.addOptional(cmd)
	s := cmd.Flags()
	s.StringVar(&t.prediction, "prediction", "", "`FILE` with a prediction for a virtual machine")
	cmd.MarkFlagsOneRequired("image", "prediction")
	cmd.MarkFlagsMutuallyExclusive("image", "prediction")
	cmd.MarkFlagsRequiredTogether("image", "cmdline")
	s.StringVar(&t.vendor, "vendor", "", "`DIR` of the vendor")
	s.StringVar(&t.out, "out", "", "`DIR` to write the TD to; must not hold one yet")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document of the TD")
	s.BoolVar(&t.debug, "debug", false, "let the host read and write the TD")
	s.BoolVar(&t.migratable, "migratable", false, "let a migration TD move it to another platform")
	s.BoolVar(&t.tdx10, "tdx-1.0", false, "make quotes of version 4 with a report of TDX 1.0, instead of version 5 with one of TDX 1.5")
	t.chip.add(cmd, tcbUpToDate, tcbOldPlatform, tcbOldModule, tcbOldQE, tcbUnknown)
	_ = cmd.MarkFlagRequired("vendor")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// startTD fills in what the TD is started from.
func (c *cli) startTD(l *tdx.Launch, f guestFlags, prediction string) error {
	if prediction == "" {
		in, err := c.launch(f)
		l.Image, l.CommandLine, l.InitDataDigest = in.Image, in.CommandLine, in.InitDataDigest
		return err
	}
	doc, err := c.readPrediction(prediction)
	if err != nil {
		return err
	}
	if l.Boot, err = doc.TD(); err != nil {
		return err
	}
	init, err := c.initData(f.initData)
	if err == nil && init != nil {
		l.InitDataDigest = init.Digest()
	}
	return err
}

// launch is what the flags say but for what the TD is started from.
func (t *tdFlags) launch() tdx.Launch {
	l := tdx.Launch{Attributes: tdx.DefaultAttributes, TDX15: !t.tdx10, Chip: t.chip.options()}
	if t.debug {
		l.Attributes |= tdx.AttrDebug
	}
	if t.migratable {
		l.Attributes |= tdx.AttrMigratable
	}
	if t.chip.tcb.value == tcbOldModule {
		l.Module = func(m *dcap.Module) { m.SVN[0] -= 2 }
	}
	return l
}
