package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const predictHelp = `Predict computes what a guest will measure to, before it ever runs.

For a virtual machine it takes firmware, kernel, initrd and command line (or a
unified kernel image) and the shapes in which the machine is to run, and makes
one document for all platforms: the launch digests of SEV, SEV-ES and SEV-SNP,
MRTD and RTMR0 to RTMR3 of TDX, PCR 0 to 15 of a TPM, and the fields that hold
the digest of the init-data. Every value says which inputs it depends on and for
which shape it holds. What the given files do not determine is listed with the
reason; nothing is guessed:

  --edition   of OVMF, which a file does not tell: what firmware measures changes
              between them. Needed for RTMRs and PCRs
  --machine   what QEMU says of the machine (ACPI tables): see 'measure machine'
  --tpm-log, --cc-log   the log of one boot of the same machine, for what no file
              tells: the firmware's volumes in memory, SMBIOS tables, boot options.
              Such a prediction finds what changed since, not what was wrong then

With --image it predicts a simulated guest instead: a process whose image is one
file, started by 'measure sim guest' (snp unless --platform says tdx or tpm).

'measure diff' compares the document (-o json) with what a guest measured.`

const predictExample = `  # a virtual machine, in four shapes, on all platforms
  measure predict --firmware OVMF.fd --edition 202502 --kernel vmlinuz --initrd initrd.img \
      --cmdline @cmdline --vcpus 1,2,4,8 --memory 2G -o json > prediction.json

  # its reference values, signed, for the broker
  measure predict --prediction prediction.json -o corim --id guest-1.4.2 --key release.key \
      --ends 2027-12-31T00:00:00Z > guest-1.4.2.cbor
  kbsctl apply -f guest-1.4.2.cbor

  # a simulated guest
  measure predict --image ./agent --cmdline "console=ttyS0"
  measure predict --image ./agent --cmdline @/proc/cmdline -o refvalue | kbsctl apply -f -`

// guestFlags are the inputs of a simulated launch.
type guestFlags struct {
	image, commandLine, initData string
}

func (f *guestFlags) add(cmd *cobra.Command) {
	f.addOptional(cmd)
	_ = cmd.MarkFlagRequired("image")
	_ = cmd.MarkFlagRequired("cmdline")
}

func (f *guestFlags) addOptional(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.image, "image", "", "`FILE` that the guest executes")
	cmd.Flags().StringVar(&f.commandLine, "cmdline", "", "kernel command line: `STRING`, or @FILE (a newline at its end does not count)")
}

func (c *cli) launch(f guestFlags) (snp.Launch, error) {
	var l snp.Launch
	var err error
	if l.Image, err = c.readFile(f.image); err != nil {
		return l, err
	}
	if l.CommandLine, err = c.commandLine(f.commandLine); err != nil {
		return l, err
	}
	doc, err := c.initData(f.initData)
	if err == nil && doc != nil {
		l.InitDataDigest = doc.Digest()
	}
	return l, err
}

// commandLine reads a flag that is the text itself or names a file.
func (c *cli) commandLine(flag string) (string, error) {
	name, ok := strings.CutPrefix(flag, "@")
	if !ok {
		return flag, nil
	}
	text, err := c.readFile(name)
	return strings.TrimSuffix(string(text), "\n"), err
}

// initData reads an init-data document; no name is none.
func (c *cli) initData(name string) (*initdata.Document, error) {
	if name == "" {
		return nil, nil
	}
	raw, err := c.readFile(name)
	if err != nil {
		return nil, err
	}
	doc, err := initdata.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return doc, nil
}

func (c *cli) predictCommand() *cobra.Command {
	var f predictFlags
	var out outputFlags
	cmd := &cobra.Command{
		Use:     "predict --firmware FILE [--kernel FILE --initrd FILE --cmdline STRING|@FILE] | --image FILE | --prediction FILE",
		Short:   "Compute what a guest will measure to, on every platform",
		Long:    predictHelp,
		Example: predictExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			doc, err := c.predicted(cmd, f)
			if err != nil {
				return err
			}
			return c.printPrediction(doc, out)
		},
	}
	f.add(cmd)
	out.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("firmware", "image", "prediction")
	cmd.MarkFlagsOneRequired("firmware", "image", "prediction")
	cmd.MarkFlagsMutuallyExclusive("kernel", "uki")
	return cmd
}

// predicted makes the document that the flags ask for.
func (c *cli) predicted(cmd *cobra.Command, f predictFlags) (*predict.Document, error) {
	switch {
	case f.prediction != "":
		return c.readPrediction(f.prediction)
	case f.image != "":
		return c.predictSimulated(cmd, f)
	}
	in, err := c.predictInputs(f)
	if err != nil {
		return nil, err
	}
	return predict.Make(in)
}

func (c *cli) readPrediction(name string) (*predict.Document, error) {
	raw, err := c.readFile(name)
	if err != nil {
		return nil, err
	}
	doc, err := predict.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return doc, nil
}

func (c *cli) predictSimulated(cmd *cobra.Command, f predictFlags) (*predict.Document, error) {
	if !cmd.Flags().Changed("cmdline") {
		return nil, fmt.Errorf(`required flag(s) "cmdline" not set`)
	}
	platforms, err := each("platform", f.platforms, predict.SNP, predict.TDX, predict.TPM)
	if err != nil {
		return nil, fmt.Errorf("simulated guests: %w", err)
	}
	if platforms == nil {
		platforms = []predict.Platform{predict.SNP}
	}
	image, err := c.readFile(f.image)
	if err != nil {
		return nil, err
	}
	line, err := c.commandLine(f.commandLine)
	if err != nil {
		return nil, err
	}
	doc, err := c.initData(f.initData)
	if err != nil {
		return nil, err
	}
	return predict.Simulated(image, line, doc, platforms...)
}
