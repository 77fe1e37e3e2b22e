package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

// stdio is where data and messages go.
type stdio struct{ out, err io.Writer }

// program is one run of the command.
type program struct {
	getenv func(string) string
	io     stdio
}

// errUsage marks errors in how the command was called.
var errUsage = errors.New("usage")

// run executes the command line and returns its exit code.
func run(ctx context.Context, args []string, getenv func(string) string, io stdio) int {
	p := &program{getenv: getenv, io: io}
	cmd := p.command()
	understood := false
	cmd.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	cmd.SetArgs(args)
	cmd.SetOut(io.out)
	cmd.SetErr(io.err)
	at, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return fault.ExitOK
	}
	_, _ = fmt.Fprintf(io.err, "kbs: %s\n", strings.TrimSpace(err.Error()))
	if !understood || errors.Is(err, errUsage) {
		if !at.HasSubCommands() {
			_, _ = fmt.Fprintf(io.err, "  usage    %s\n", at.UseLine())
		}
		_, _ = fmt.Fprintf(io.err, "  hint     %s --help\n", at.CommandPath())
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		_, _ = fmt.Fprintf(io.err, "  cause    %v\n", f.Cause()) // who runs this is the operator
		return f.Code.Exit()
	}
	return fault.ExitUsage
}

func (p *program) command() *cobra.Command {
	var from settings
	root := &cobra.Command{
		Use:   "kbs",
		Short: "The key broker for confidential containers",
		Long: `The key broker for confidential containers.

With a configuration file and no command it serves, as Trustee's KBS does.
What it keeps, kbsctl looks after.

Exit codes: 0 ok, 1 usage, configuration, or what this machine lacks, 4 not found,
5 conflict, 6 unavailable or timed out.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if p.file(from) == "" {
				return needsCommand(cmd, args)
			}
			return p.serveFrom(cmd.Context(), from)
		},
	}
	from.flags(root.Flags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(p.serveCommand(), p.configCommand(), p.adminTokenCommand(), p.keysCommand(), p.backupCommand(), p.restoreCommand(), p.migrateCommand(), p.referenceCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.io.out, version.Here().Line("kbs"))
			return err
		},
	})
	return root
}

// needsCommand is for commands that only hold others. Without it cobra would
// print help and succeed, whatever was misspelt.
func needsCommand(cmd *cobra.Command, _ []string) error {
	return fmt.Errorf("%w: %s needs a command", errUsage, cmd.CommandPath())
}
