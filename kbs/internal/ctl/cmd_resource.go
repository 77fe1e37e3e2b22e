package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// onResource runs a change of the resource that it names, as it was seen a
// moment ago, and shows what came of it.
func (c *cli) onResource(ctx context.Context, name, doing1, done string, change func(*admin.Client, api.ResourceInfo) (api.ResourceInfo, error)) error {
	path, err := resourcePath(name)
	if err != nil {
		return err
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	live, err := a.Resource(ctx, path)
	if err == nil {
		live, err = change(a, live)
	}
	if err != nil {
		return doing(err, "%s resource/%s", doing1, path)
	}
	o := c.resourceObject(live)
	o.shown()
	if c.flags.output != "table" {
		return c.print([]object{o}, nil, false)
	}
	return c.printf("resource/%s %s (version %d)\n", path, done, live.Version)
}

func (c *cli) group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sub...)
	return cmd
}

func (c *cli) setCommand() *cobra.Command {
	var m metaFlags
	cmd := &cobra.Command{
		Use:   "resource REPO/TYPE/TAG FLAGS",
		Short: "Change what is said about a resource, and leave its value",
		Long: `Change what is said about a resource; what no flag names stays. Somebody else's
change in between is a conflict.`,
		Example: `  kbsctl set resource prod/db/password --owner team-db --expires 2027-06-30
  kbsctl set resource prod/image/app --image sha256:4e07... --image reg.example/app
  kbsctl set resource prod/db/password --hold "under review"
  kbsctl set resource prod/db/password --hold "" --label stage-`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !m.given(cmd) {
				return usagef("there is nothing to set").hint("%s --help", cmd.CommandPath())
			}
			return c.onResource(cmd.Context(), args[0], "set", configured, func(a *admin.Client, live api.ResourceInfo) (api.ResourceInfo, error) {
				about, err := m.change(cmd, live.ResourceMeta)
				if err != nil {
					return live, err
				}
				return a.SetResourceMeta(cmd.Context(), live.Path, live.Version, about)
			})
		},
	}
	m.add(cmd)
	return c.group("set KIND NAME", "Change what is said about an object", cmd, c.setTenantCommand())
}

func (c *cli) rollbackCommand() *cobra.Command {
	var to int64
	cmd := &cobra.Command{
		Use:   "resource REPO/TYPE/TAG --to VERSION",
		Short: "Store a former value again, as a new version",
		Long: `Store the value of a former version again. It becomes a new version; nothing is
taken away. kbsctl describe resource shows which versions are kept.`,
		Example:           `  kbsctl rollback resource prod/db/password --to 2`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onResource(cmd.Context(), args[0], "roll back", "rolled back", func(a *admin.Client, live api.ResourceInfo) (api.ResourceInfo, error) {
				return a.RollbackResource(cmd.Context(), live.Path, live.Version, to)
			})
		},
	}
	cmd.Flags().Int64Var(&to, "to", 0, "`VERSION` to go back to")
	_ = cmd.MarkFlagRequired("to")
	return c.group("rollback resource NAME", "Bring a former version back", cmd)
}

func (c *cli) destroyCommand() *cobra.Command {
	var version int64
	cmd := &cobra.Command{
		Use:   "resource REPO/TYPE/TAG --version VERSION",
		Short: "Wipe a former value for good",
		Long: `Wipe the value of a former version. It cannot be brought back, except from a
backup of the broker. The current value is replaced or deleted, not destroyed.`,
		Example:           `  kbsctl destroy resource prod/db/password --version 2`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onResource(cmd.Context(), args[0], "destroy a version of", "lost a version", func(a *admin.Client, live api.ResourceInfo) (api.ResourceInfo, error) {
				if version == live.Value {
					return live, (&failure{
						err:  fault.Newf(fault.Conflict, "version %d is the current value", version),
						exit: fault.ExitConflict,
					}).hint("store another value first, or kbsctl delete resource/%s", live.Path)
				}
				return a.DestroyResourceVersion(cmd.Context(), live.Path, live.Version, version)
			})
		},
	}
	cmd.Flags().Int64Var(&version, "version", 0, "`VERSION` to wipe")
	_ = cmd.MarkFlagRequired("version")
	return c.group("destroy resource NAME", "Wipe a former version for good", cmd)
}

// completeResources completes the names of resources alone.
func (c *cli) completeResources(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeObjects(false)(cmd, []string{"resource"}, word)
}
