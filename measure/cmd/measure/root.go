package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
)

const rootHelp = `measure answers two questions about confidential guests, offline,

  What will this guest measure to?    measure predict, measure diff
  What is this evidence worth?        measure verify, measure inspect

and keeps what vendors publish, which the second needs:  measure collateral
In a guest, it asks the hardware for evidence:           measure obtain

A guest's processor measures what it starts and signs a report about it. The
report is the evidence; the measurement in it is compared with a reference
value that you registered with the key broker. 'measure predict' computes that
value before the guest ever runs.

No hardware at hand? 'measure sim' makes a processor vendor of your own, and
guests on its chips. Their reports are real in every byte, but their root is
yours: a verifier trusts it only where its configuration names it.

Try it:

  measure sim vendor ./vendor
  measure sim guest --vendor ./vendor --out ./guest --image ./agent --cmdline "quiet"
  measure sim evidence ./guest --report-data 00ff > evidence.json
  measure verify --evidence evidence.json --report-data 00ff --simulated-root mine=./vendor/root.pem

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 usage or unknown,
3 evidence or signature invalid, 4 file or platform not found, 5 exists already,
6 not to be had now, 7 differences found.`

// cli is one run of the command.
type cli struct {
	in       io.Reader
	out, err io.Writer
	// machine stands in for [obtain.ThisMachine]; nil outside of tests.
	machine func(tpmDevices ...string) obtain.Machine
}

// run executes the command and returns its exit code (fault.Exit...).
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&cli{in: stdin, out: stdout, err: stderr}).run(ctx, args)
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use:   "measure",
		Short: "Predict launch measurements and verify evidence, offline",
		Long:  rootHelp,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// Errors are printed below, once, with an exit code.
		SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(c.predictCommand(), c.machineCommand(), c.diffCommand(), c.idBlockCommand(), c.verifyCommand(), c.inspectCommand(),
		c.obtainCommand(), c.enrollCommand(), c.collateralCommand(), c.simCommand(), c.versionCommand())
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		_, _ = fmt.Fprintf(c.err, "measure: %s\n", plainLines(err.Error()))
		if !understood || strings.HasPrefix(err.Error(), "required flag(s)") { // the latter come after PersistentPreRun
			if !cmd.HasSubCommands() {
				_, _ = fmt.Fprintf(c.err, "  usage  %s\n", cmd.UseLine())
			}
			_, _ = fmt.Fprintf(c.err, "  hint   %s --help\n", cmd.CommandPath())
		}
	}
	return exitCode(err)
}

// invalidEvidence is evidence that cannot even be read.
type invalidEvidence struct{ error }

// Unwrap returns the reason.
func (e invalidEvidence) Unwrap() error { return e.error }

func exitCode(err error) int {
	_, refused := errors.AsType[*measure.VerificationError](err)
	_, invalid := errors.AsType[invalidEvidence](err)
	_, other := errors.AsType[differs](err)
	_, offline := errors.AsType[unavailable](err)
	switch {
	case refused || invalid:
		return fault.ExitEvidence
	case other:
		return fault.ExitDifferent
	case offline:
		return fault.ExitUnavailable
	case errors.Is(err, obtain.ErrNone):
		return fault.ExitNotFound
	}
	return fault.ExitOf(err)
}

// choice is a flag with a fixed set of values.
type choice struct {
	value   string
	allowed []string
}

func oneOf(allowed ...string) *choice { return &choice{value: allowed[0], allowed: allowed} }

// String returns the value; pflag shows it as the default.
func (c *choice) String() string { return c.value }

// Type names the values in the help.
func (c *choice) Type() string { return strings.Join(c.allowed, "|") }

// Set accepts only the allowed values.
func (c *choice) Set(v string) error {
	if !slices.Contains(c.allowed, v) {
		return fmt.Errorf("want one of %s", strings.Join(c.allowed, ", "))
	}
	c.value = v
	return nil
}

// inHex shows the default of a numeric flag in the base in which people know it.
func inHex(cmd *cobra.Command, name string) {
	f := cmd.Flags().Lookup(name)
	if n, err := strconv.ParseUint(f.DefValue, 0, 64); err == nil {
		f.DefValue = fmt.Sprintf("%#x", n)
	}
}

// maxFile is the largest file read whole, in bytes.
const maxFile = 1 << 30

// readFile reads a file, or stdin if the name is "-".
func (c *cli) readFile(name string) ([]byte, error) {
	if name == "-" {
		return given.Reader(c.in, "stdin", maxFile)
	}
	return given.File(name, maxFile)
}

// namedFiles reads the files of a flag that takes NAME=FILE, in the order
// given.
func (c *cli) namedFiles(flag string, values []string) ([]namedFile, error) {
	var out []namedFile
	for _, v := range values {
		name, path, ok := strings.Cut(v, "=")
		if !ok || name == "" || path == "" {
			return nil, fmt.Errorf("--%s wants NAME=FILE, got %q", flag, v)
		}
		data, err := c.readFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, namedFile{name, data})
	}
	return out, nil
}

type namedFile struct {
	name string
	data []byte
}
