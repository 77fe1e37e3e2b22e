package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/fetch"
)

const rootHelp = `Rootfs builds the guest image: a kernel, the agent as PID 1 and an OCI runtime,
from packages that are pinned by their hashes. It needs no root, and the same
inputs make the same bytes.

  rootfs lock    finds the packages that a recipe names, and pins them
  rootfs build   makes the image, and the documents that vouch for it
  rootfs inspect tells what is in one
  rootfs verify  proves it against its documents
  rootfs run     boots one in QEMU

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 usage or unknown,
3 signature invalid, or not what the documents say, 4 file, program or package
not found, 6 not to be had now.`

// cli is what the commands share.
type cli struct{ out, err io.Writer }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{out: stdout, err: stderr}
	root := &cobra.Command{
		Use:   "rootfs",
		Short: "Build the guest image, reproducibly",
		Long:  rootHelp,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// Errors are printed below, once, with an exit code.
		SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(c.lockCommand(), c.buildCommand(), c.inspectCommand(), c.verifyCommand(), c.runCommand(), c.versionCommand())
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		_, _ = fmt.Fprintf(c.err, "rootfs: %s\n", strings.TrimSpace(err.Error()))
		if !understood || strings.HasPrefix(err.Error(), "required flag(s)") { // the latter come after PersistentPreRun
			if !cmd.HasSubCommands() {
				_, _ = fmt.Fprintf(c.err, "  usage  %s\n", cmd.UseLine())
			}
			_, _ = fmt.Fprintf(c.err, "  hint   %s --help\n", cmd.CommandPath())
		}
	}
	return exitCode(err)
}

func exitCode(err error) int {
	if errors.Is(err, fetch.ErrGone) || errors.Is(err, exec.ErrNotFound) {
		return fault.ExitNotFound
	}
	return fault.ExitOf(err)
}

func (c *cli) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.err, "rootfs: "+format+"\n", args...)
}
