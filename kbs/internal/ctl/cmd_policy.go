package ctl

import (
	"context"
	"strconv"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func (c *cli) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Test policies before they bite, and bring them into force in stages",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.policyTestCommand(), c.policyReplayCommand(), c.policyCorpusCommand(), c.policyPromoteCommand(),
		c.policyRollbackCommand(), c.policyHistoryCommand(), c.policyTemplateCommand())
	return cmd
}

// onPolicy runs f about one policy at the broker.
func (c *cli) onPolicy(ctx context.Context, name string, f func(ctx context.Context, a *admin.Client, kind, id string) error) error {
	kind, id, err := splitPolicy(name)
	if err != nil {
		return err
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	return f(ctx, a, kind, id)
}

func (c *cli) completePolicies(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeObjects(false)(cmd, []string{"policy"}, word)
}

func (c *cli) policyHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history KIND/ID",
		Short: "List the versions of a policy that are kept",
		Example: `  kbsctl policy history resource/resource-policy
  kbsctl diff policy resource/resource-policy --from 3 --to 5`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completePolicies,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onPolicy(cmd.Context(), args[0], func(ctx context.Context, a *admin.Client, kind, id string) error {
				all, err := a.PolicyVersions(ctx, kind, id)
				if err != nil {
					return doing(err, "history of policy/%s", args[0])
				}
				if c.flags.output != "table" {
					return c.printData(map[string]any{"items": all})
				}
				rows := make([][]string, len(all))
				for i, p := range all {
					rows[i] = []string{strconv.FormatInt(p.Version, 10), p.Stage, p.Author, age(p.Time, c.now()), p.Note}
				}
				return c.printTable([]string{"VERSION", "STAGE", "AUTHOR", "AGE", "NOTE"}, rows)
			})
		},
	}
}

// moveFlags are what promote and rollback have in common.
type moveFlags struct{ change api.StageChange }

func (m *moveFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.change.Note, "note", "", "`REASON`, for the audit log")
	cmd.Flags().Int64Var(&m.change.Version, "if-version", int64(store.Any), "only if this `VERSION` is in force now; 0: none")
	cmd.Flags().Lookup("if-version").DefValue = "0" // help shows no default: any
}

func (c *cli) policyPromoteCommand() *cobra.Command {
	var m moveFlags
	cmd := &cobra.Command{
		Use:   "promote KIND/ID [--version N] [--to shadow|enforce]",
		Short: "Bring a version of a policy into the shadow, or into force",
		Long: `Bring a version of a policy into the shadow, where it is evaluated beside the one
in force and only counted, or into force. Without --version it is the one in the
shadow, or else the newest. --to draft takes the shadow away.

A version that would allow what is recorded as refused is not enforced, unless
--allow-newly-allowed says that this is wanted; the audit log tells.`,
		Example: `  kbsctl create policy resource/resource-policy --from-file new.rego --stage draft
  kbsctl policy promote resource/resource-policy --to shadow
  kbsctl describe policy resource/resource-policy
  kbsctl policy promote resource/resource-policy --note "change 4711"`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completePolicies,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.move(cmd.Context(), args[0], m.change) },
	}
	m.add(cmd)
	cmd.Flags().Int64Var(&m.change.Target, "version", 0, "`VERSION` to bring there (default: the one in the shadow, else the newest)")
	cmd.Flags().StringVar(&m.change.To, "to", api.StageEnforce, "`STAGE`: shadow, enforce or draft")
	cmd.Flags().BoolVar(&m.change.AllowNewlyAllowed, "allow-newly-allowed", false, "enforce it although it allows what was refused")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(
		[]string{api.StageShadow, api.StageEnforce, api.StageDraft}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *cli) policyRollbackCommand() *cobra.Command {
	m := moveFlags{change: api.StageChange{To: api.StageEnforce, Rollback: true}}
	cmd := &cobra.Command{
		Use:   "rollback KIND/ID [--to N]",
		Short: "Put an earlier version of a policy back into force",
		Long: `Put a version of a policy back into force that was in force before: the last one
below the present, or the one that --to names. It also brings a deleted policy
back. A rollback is not held up by what it would allow.`,
		Example: `  kbsctl policy rollback resource/resource-policy
  kbsctl policy rollback attestation/default_cpu --to 3 --note "incident 12"`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completePolicies,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.move(cmd.Context(), args[0], m.change) },
	}
	m.add(cmd)
	cmd.Flags().Int64Var(&m.change.Target, "to", 0, "`VERSION` to go back to (default: the last one in force before)")
	return cmd
}

func (c *cli) move(ctx context.Context, name string, change api.StageChange) error {
	return c.onPolicy(ctx, name, func(ctx context.Context, a *admin.Client, kind, id string) error {
		p, err := a.MovePolicy(ctx, kind, id, change)
		if err != nil {
			return doing(err, "move policy/%s", name)
		}
		if c.flags.output != "table" {
			return c.print([]object{c.policyObject(p)}, nil, false)
		}
		if p.Stage == api.StageEnforce {
			c.warnIdle(p)
		}
		return c.printf("policy/%s version %d: %s\n", name, p.Version, p.Stage)
	})
}

// diffVersions shows what lies between two versions of a policy. It sets the
// exit code like every diff.
func (c *cli) diffVersions(ctx context.Context, name string, from, to int64) error {
	return c.onPolicy(ctx, name, func(ctx context.Context, a *admin.Client, kind, id string) error {
		older, err := a.PolicyVersion(ctx, kind, id, from)
		if err != nil {
			return doing(err, "diff policy/%s: version %d", name, from)
		}
		newer, err := versionOrCurrent(ctx, a, kind, id, to)
		if err != nil {
			return doing(err, "diff policy/%s", name)
		}
		at := func(p api.Policy) string { return name + "@" + strconv.FormatInt(p.Version, 10) }
		d := diff.Diff(at(older), []byte(older.Rego), at(newer), []byte(newer.Rego))
		if len(d) == 0 {
			return nil
		}
		if err := c.printf("%s", clean(string(d))); err != nil {
			return err
		}
		return errDifferent
	})
}

func versionOrCurrent(ctx context.Context, a *admin.Client, kind, id string, n int64) (api.Policy, error) {
	if n == 0 {
		return a.Policy(ctx, kind, id)
	}
	return a.PolicyVersion(ctx, kind, id, n)
}
