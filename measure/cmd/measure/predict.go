package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const predictHelp = `Predict computes the launch measurement that a guest will have.

Two guests measure the same exactly if image and command line are the same to
the byte. Init-data does not change the measurement; evidence carries its
digest in a field of its own.

What can be predicted today is a simulated guest: a process whose image is one
file, started by 'measure sim guest'. The digest is made by the chain of the
AMD secure processor, over a memory layout without firmware or virtual CPUs. A
real virtual machine has both, and predicting one is not built yet.`

const predictExample = `  # the value itself
  measure predict --image ./agent --cmdline "console=ttyS0"

  # the command line from a file, and the value as a document for the broker
  measure predict --image ./agent --cmdline @/proc/cmdline -o refvalue | kbsctl apply -f -`

// guestFlags are the inputs of a launch.
type guestFlags struct {
	image, commandLine, initData string
}

func (f *guestFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.image, "image", "", "`FILE` that the guest executes")
	cmd.Flags().StringVar(&f.commandLine, "cmdline", "", "kernel command line: `STRING`, or @FILE (a newline at its end does not count)")
	_ = cmd.MarkFlagRequired("image")
	_ = cmd.MarkFlagRequired("cmdline")
}

func (c *cli) launch(f guestFlags) (snp.Launch, error) {
	l := snp.Launch{CommandLine: f.commandLine}
	var err error
	if l.Image, err = c.readFile(f.image); err != nil {
		return l, err
	}
	if name, ok := strings.CutPrefix(f.commandLine, "@"); ok {
		text, err := c.readFile(name)
		if err != nil {
			return l, err
		}
		l.CommandLine = strings.TrimSuffix(string(text), "\n")
	}
	if f.initData != "" {
		doc, err := c.initData(f.initData)
		if err != nil {
			return l, err
		}
		l.InitDataDigest = doc.Digest()
	}
	return l, nil
}

func (c *cli) initData(name string) (*initdata.Document, error) {
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
	var f guestFlags
	platform, output := oneOf("snp"), oneOf("hex", "json", "refvalue")
	cmd := &cobra.Command{
		Use:     "predict --image FILE --cmdline STRING|@FILE",
		Short:   "Compute the launch measurement that a guest will have",
		Long:    predictHelp,
		Example: predictExample,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return c.predict(f, output.value) },
	}
	f.add(cmd)
	cmd.Flags().Var(platform, "platform", "platform of the guest")
	cmd.Flags().VarP(output, "output", "o", "hex, json with the inputs beside the value, or a reference value document for kbsctl apply")
	return cmd
}

func (c *cli) predict(f guestFlags, output string) error {
	l, err := c.launch(f)
	if err != nil {
		return err
	}
	m, err := snp.Predict(l)
	if err != nil {
		return err
	}
	value := hex.EncodeToString(m[:])
	switch output {
	case "json":
		image := sha256.Sum256(l.Image)
		return c.printJSON(map[string]any{
			"platform": "snp", "guest": "simulated", "measurement": value,
			"inputs": map[string]string{"image_sha256": hex.EncodeToString(image[:]), "cmdline": l.CommandLine},
		})
	case "refvalue":
		return c.printJSON(map[string]any{
			"kind":     "RefValue",
			"metadata": map[string]string{"name": "snp_launch_measurement"}, // the name in the field's policies
			"spec":     map[string]any{"value": []string{value}},
		})
	}
	_, err = fmt.Fprintln(c.out, value)
	return err
}
