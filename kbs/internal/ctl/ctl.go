// Package ctl is kbsctl: the commands by which a person, or a script, looks
// after a key broker and ships images for it.
//
// It lives outside main so that its parts can be tested without a process. The
// grammar is kubectl's (verb, kind, name); stdout is data and stderr is
// messages; the exit codes are those of package fault. Only cmd/kbsctl and
// tests call it. Nothing here keeps state between two calls of [Run].
package ctl

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// Stdio is where a command reads and writes.
type Stdio struct {
	In  io.Reader
	Out io.Writer // data
	Err io.Writer // messages
}

// Run executes one command line (without the program's name) and returns the
// exit code. env looks up an environment variable.
func Run(ctx context.Context, args []string, env func(string) string, stdio Stdio) int {
	c := &cli{args: args, env: env, stdio: stdio, now: time.Now, after: time.After}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdio.In)
	root.SetOut(stdio.Out)
	root.SetErr(stdio.Err)
	if cmd, err := root.ExecuteContextC(ctx); err != nil {
		if strings.HasPrefix(err.Error(), "required flag(s)") { // cobra's own words, which say no more
			err = usagef("%w", err).hint("%s --help", cmd.CommandPath())
		}
		return c.report(err)
	}
	return fault.ExitOK
}

// cli is what the commands of one run share.
type cli struct {
	args  []string // of the whole command line
	env   func(string) string
	stdio Stdio
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
	flags flags
}

// flags are the global ones.
type flags struct {
	server    string
	ca        string
	tokenFile string
	context   string
	tenant    string
	output    string
	noHeaders bool
	timeout   time.Duration
}

const rootLong = `kbsctl looks after a Vouchsafe key broker: its policies, reference values and
resources, the tickets of what it refused, and its audit log. It also encrypts
and signs images whose keys the broker then guards.

Exit codes: 0 ok, 1 usage or unknown, 2 refused, 3 evidence or signature
invalid, 4 not found, 5 conflict, 6 unavailable or timed out, 7 differences.`

const rootExample = `  kbsctl list policies
  kbsctl apply -f policies/
  kbsctl explain ticket/7QK2-M9TD
  kbsctl audit verify --log-key audit.pub
  kbsctl image encrypt reg.example/app:1 --to reg.example/app:1-enc --sign release.key`

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "kbsctl",
		Short:         "Look after a key broker for confidential containers",
		Long:          rootLong,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w", err).hint("%s --help", cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&c.flags.server, "server", "", "`URL` of the broker (env KBS_SERVER; default "+defaultServer+")")
	f.StringVar(&c.flags.ca, "ca", "", "PEM `FILE` of the CA that signed the broker's certificate (env KBS_CA)")
	f.StringVar(&c.flags.tokenFile, "token-file", "", "`FILE` with the administrator's token (env KBS_TOKEN_FILE)")
	f.StringVar(&c.flags.context, "context", "", "`NAME` of the context in the config file (env KBS_CONTEXT)")
	f.StringVar(&c.flags.tenant, "tenant", "", "`NAME` of the tenant (env KBS_TENANT)")
	f.StringVarP(&c.flags.output, "output", "o", "table", "output `FORMAT`: table, json, yaml, name, manifest")
	f.BoolVar(&c.flags.noHeaders, "no-headers", false, "print tables without the line of headers")
	spanFlag(f, &c.flags.timeout, "request-timeout", 30*time.Second, "give up on one request after this `DURATION`")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{"table", "json", "yaml", "name", "manifest"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("context", c.completeContexts)
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return checkOutput(c.flags.output) }

	const objects, journeys, self = "objects", "journeys", "self"
	root.AddGroup(
		&cobra.Group{ID: objects, Title: "Objects of the broker:"},
		&cobra.Group{ID: journeys, Title: "Journeys:"},
		&cobra.Group{ID: self, Title: "kbsctl itself:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(objects, c.getCommand(), c.listCommand(), c.describeCommand(), c.watchCommand(), c.createCommand(),
		c.applyCommand(), c.editCommand(), c.diffCommand(), c.setCommand(), c.rollbackCommand(), c.destroyCommand(), c.rotateCommand(),
		c.suspendCommand(), c.resumeCommand(), c.approveCommand(), c.denyCommand(), c.revokeCommand(), c.impactCommand(), c.silenceCommand(), c.unsilenceCommand(),
		c.deleteCommand(), c.explainCommand())
	add(journeys, c.policyCommand(), c.refValueCommand(), c.imageCommand(), c.sealCommand(), c.preflightCommand(), c.auditCommand())
	add(self, c.loginCommand(), c.logoutCommand(), c.whoamiCommand(), c.configCommand(), c.versionCommand())
	root.SetHelpCommandGroupID(self)
	root.SetCompletionCommandGroupID(self)
	return root
}

// client returns a client for the broker that flags, environment and config
// file name.
func (c *cli) client() (*admin.Client, error) {
	s, err := c.settings()
	if err != nil {
		return nil, err
	}
	cfg := admin.Config{URL: s.Server, TokenFile: s.TokenFile, Tenant: s.Tenant, Timeout: c.flags.timeout}
	switch {
	case s.TokenFile != "":
	case s.Exec != nil:
		cfg.Token = s.Exec.once(c)
	default:
		return nil, usagef("%w", admin.ErrNoToken).
			hint("kbsctl login, --token-file FILE or KBS_TOKEN_FILE; kbs serve writes one to admin/token in its state directory")
	}
	if s.CA != "" {
		if cfg.RootCAs, err = readCA(s.CA); err != nil {
			return nil, err
		}
	}
	client, err := admin.New(cfg)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return client, nil
}
