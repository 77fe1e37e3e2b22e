package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
)

const diffHelp = `Diff compares a prediction with what a guest measured, and says in words what
differs: the firmware, the kernel, the initrd, the command line, the number of
vCPUs, the size of memory.

PREDICTION is what 'measure predict -o json' wrote. EVIDENCE is evidence of
SEV-SNP, TDX or a TPM as the KBS protocol carries it, a raw SEV-SNP report or TDX
quote, or an event log alone (that of a TPM or a CCEL). Nothing of it is verified
here: for that there is 'measure verify'.

Registers are explained event by event if the evidence brings its event log, or
--log does; a log that does not lead to the registers of the evidence is refused.
A launch digest of SEV-SNP has no log: it is searched for, over numbers of vCPUs,
processor models, guest features and VMMs, and the files given with --try.

Exit code: 0 if nothing differs, 7 if something does.`

const diffExample = `  measure diff prediction.json evidence.json
  measure diff prediction.json evidence.json --try kernel=vmlinuz.old --try cmdline=@/proc/cmdline
  measure diff prediction.json /sys/kernel/security/tpm0/binary_bios_measurements`

func (c *cli) diffCommand() *cobra.Command {
	var log string
	var try []string
	output := oneOf("text", "json")
	cmd := &cobra.Command{
		Use:     "diff PREDICTION EVIDENCE",
		Short:   "Say what differs between a prediction and what a guest measured",
		Long:    diffHelp,
		Example: diffExample,
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			candidates, err := c.candidates(try)
			if err != nil {
				return err
			}
			found, err := c.compare(args[0], args[1], log, candidates)
			if err != nil {
				return err
			}
			if output.value == "json" {
				err = c.printJSON(found)
			} else {
				err = printComparison(c.out, found)
			}
			if err == nil && len(found.Differences) > 0 {
				err = differs{len(found.Differences)}
			}
			return err
		},
	}
	s := cmd.Flags()
	s.StringVar(&log, "log", "", "`FILE` with the event log that belongs to the evidence")
	s.StringArrayVar(&try, "try", nil, "`INPUT=FILE` that the guest may have been started with: firmware, kernel, initrd, cmdline, uki, acpi, init_data or image (repeatable)")
	s.VarP(output, "output", "o", "output format")
	return cmd
}

// differs says that a guest did not measure what was predicted.
type differs struct{ count int }

// Error counts the differences.
func (d differs) Error() string {
	if d.count == 1 {
		return "the guest measured something else: 1 difference"
	}
	return fmt.Sprintf("the guest measured something else: %d differences", d.count)
}

func (c *cli) compare(prediction, evidence, log string, candidates []predict.Candidate) (*predict.Comparison, error) {
	doc, err := c.readPrediction(prediction)
	if err != nil {
		return nil, err
	}
	raw, err := c.readFile(evidence)
	if err != nil {
		return nil, err
	}
	seen, err := predict.ReadSeen(raw)
	if err != nil {
		return nil, invalidEvidence{fmt.Errorf("%s: %w", evidence, err)}
	}
	if log != "" {
		raw, err := c.readFile(log)
		if err != nil {
			return nil, err
		}
		l, err := eventlog.Parse(raw)
		if err == nil {
			err = seen.AddLog(l)
		}
		if err != nil {
			return nil, invalidEvidence{fmt.Errorf("%s: %w", log, err)}
		}
	}
	return predict.Diff(doc, seen, candidates)
}

func (c *cli) candidates(try []string) ([]predict.Candidate, error) {
	var out []predict.Candidate
	for _, t := range try {
		name, file, ok := strings.Cut(t, "=")
		input, err := each("try", []string{name}, boot.Firmware, boot.Kernel, boot.Initrd, boot.CommandLine, boot.UKI, boot.ACPI, boot.InitData, predict.Image)
		if err != nil || !ok || file == "" {
			return nil, errors.Join(fmt.Errorf("--try %q: want INPUT=FILE", t), err)
		}
		if input[0] == boot.CommandLine && !strings.HasPrefix(file, "@") {
			out = append(out, predict.Candidate{Input: input[0], Name: "that of --try", Data: []byte(file)})
			continue
		}
		file = strings.TrimPrefix(file, "@")
		data, err := c.readFile(file)
		if err != nil {
			return nil, err
		}
		out = append(out, predict.Candidate{Input: input[0], Name: file, Data: data})
	}
	return out, nil
}

// printComparison writes what was found for people.
func printComparison(out io.Writer, found *predict.Comparison) error {
	var b strings.Builder
	for _, m := range found.Same {
		fmt.Fprintf(&b, "as predicted: %s", m.Register)
		if when := m.When.String(); when != "" {
			fmt.Fprintf(&b, " (%s)", when)
		}
		b.WriteByte('\n')
	}
	for _, u := range found.NotCompared {
		fmt.Fprintf(&b, "not compared: %s: %s\n", u.Register, strings.Join(u.Reasons, "; "))
	}
	for _, d := range found.Differences {
		fmt.Fprintf(&b, "DIFFERENT:    %s\n", d.Text)
		for _, p := range d.Predicted {
			fmt.Fprintf(&b, "  predicted   %s\n", p)
		}
		if d.Seen != "" {
			fmt.Fprintf(&b, "  seen        %s\n", d.Seen)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// readBeginning reads the beginning of a file, or of a disk.
func readBeginning(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the caller's own file
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return io.ReadAll(io.LimitReader(f, limit))
}
