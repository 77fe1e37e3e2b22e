package ctl

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func (c *cli) getCommand() *cobra.Command {
	var o listOptions
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "Show objects, by name or all of a kind",
		Long: `Show objects, by name or all of a kind. Of a resource it shows what is known
about it, never the value. What each kind is: kbsctl explain KIND.

` + kindTable(),
		Example: `  kbsctl get policies
  kbsctl get policy resource/resource-policy -o manifest > policy.yaml
  kbsctl get resource prod/image/app -o json
  kbsctl get leases --resource prod/image/app
  kbsctl get event/42 -o yaml`,
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if watch {
				return c.watch(cmd.Context(), k, names, o, every)
			}
			return c.show(cmd.Context(), k, names, o)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with what changes, as kbsctl watch")
	everyFlag(cmd, &every)
	o.flags(cmd)
	return cmd
}

func (c *cli) listCommand() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list KIND",
		Short: "List the objects of a kind",
		Long: `List the objects of a kind, as kbsctl get KIND does.

` + kindTable(),
		Example: `  kbsctl list resources --prefix prod/
  kbsctl list tickets --limit 10
  kbsctl list events -o json`,
		Args:              exactArgs(1),
		ValidArgsFunction: completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if len(names) > 0 {
				return usagef("list takes a kind, not a name").hint("kbsctl get %s", args[0])
			}
			return c.show(cmd.Context(), k, nil, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *listOptions) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.limit, "limit", 0, "show at most this `NUMBER` of them; of events the newest (default 50)")
	cmd.Flags().StringVar(&o.prefix, "prefix", "", "show only names that start with this `TEXT`")
	cmd.Flags().BoolVar(&o.all, "all", false, "show groups of tickets that are silenced, and leases that have ended, too")
	cmd.Flags().StringVar(&o.owner, "owner", "", "show only resources of this `OWNER`")
	cmd.Flags().StringArrayVar(&o.labels, "label", nil, "show only resources with this label, `NAME=VALUE` (repeatable)")
	spanFlag(cmd.Flags(), &o.expiring, "expiring", 0, "show only resources that expire within this `DURATION`, or have")
	cmd.Flags().StringVar(&o.guest, "guest", "", "show only leases of this guest, by its `ID` or that of its token")
	cmd.Flags().StringVar(&o.resource, "resource", "", "show only leases of this resource, `REPO/TYPE/TAG`")
	cmd.Flags().StringVar(&o.claim, "claim", "", "show only leases of guests that showed this claim, `PATH=VALUE`")
}

func (o listOptions) check(k kind) error {
	switch {
	case o.limit < 0:
		return usagef("--limit must not be negative")
	case k.name != "resource" && (o.owner != "" || len(o.labels) > 0 || o.expiring != 0):
		return usagef("--owner, --label and --expiring are about resources")
	case k.name != "lease" && (o.guest != "" || o.resource != "" || o.claim != ""):
		return usagef("--guest, --resource and --claim are about leases")
	}
	return nil
}

func (c *cli) show(ctx context.Context, k kind, names []string, o listOptions) error {
	if err := o.check(k); err != nil {
		return err
	}
	found, err := c.objects(ctx, k, names, o)
	if err != nil {
		return err
	}
	list := len(names) != 1
	if c.flags.output == "manifest" && list && len(names) == 0 {
		// Lists leave the text of policies out, and a manifest needs it.
		for i := range found {
			names = append(names, found[i].name)
		}
		if found, err = c.objects(ctx, k, names, o); err != nil || len(names) == 0 {
			return err
		}
	}
	if len(found) == 0 && c.flags.output == "table" {
		c.warnf("there is no %s", k.name)
		return nil
	}
	for _, f := range found {
		if f.shown != nil {
			f.shown()
		}
	}
	return c.print(found, k.header, list)
}

func (c *cli) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND NAME...",
		Short: "Show objects in full, for reading",
		Example: `  kbsctl describe policy resource/resource-policy
  kbsctl describe event/42`,
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				return usagef("describe %s: name one", k.name).hint("kbsctl list %s", k.name)
			}
			return c.describe(cmd.Context(), k, names)
		},
	}
}

func (c *cli) describe(ctx context.Context, k kind, names []string) error {
	found, err := c.objects(ctx, k, names, listOptions{})
	if err != nil {
		return err
	}
	if c.flags.output != "table" {
		return c.print(found, k.header, len(names) != 1)
	}
	for i, o := range found {
		if i > 0 {
			if err := c.printf("\n"); err != nil {
				return err
			}
		}
		s := &sheet{w: c.stdio.Out}
		o.describe(s)
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

func (c *cli) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain ticket/ID | policy/KIND/ID | KIND",
		Short: "Explain a refusal, a policy, or what a kind consists of",
		Long: `Explain a refusal: what was asked for, which claim was not as wanted, what was
seen and what would have been accepted, and which line of which policy decided.
With a policy, list its rules with their lines, the claims that they look at and
the reference values that they ask for. With a kind, explain the document that
apply takes.`,
		Example: `  kbsctl explain ticket/7QK2-M9TD
  kbsctl explain 7QK2-M9TD -o json
  kbsctl explain policy/attestation/default_cpu
  kbsctl explain policy`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeObjects(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := fault.ParseTicket(args[0]); err == nil {
				args = []string{"ticket/" + args[0]}
			}
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				return c.printf("%s\n", k.schema)
			}
			if k.name == "policy" {
				return c.explainPolicy(cmd.Context(), names[0])
			}
			if k.name != "ticket" {
				return usagef("only a ticket or a policy can be explained by name").hint("kbsctl describe %s", args[0])
			}
			return c.describe(cmd.Context(), k, names)
		},
	}
}

func (c *cli) deleteCommand() *cobra.Command {
	var ignore bool
	var confirm string
	var version int64
	cmd := &cobra.Command{
		Use:   "delete KIND NAME...",
		Short: "Delete resources, policies, reference values or tenants",
		Long: `Delete objects as they are now: what somebody else changes between the look and
the deletion is a conflict (exit code 5), and stays. With --version it must still
be what you looked at.`,
		Example: `  kbsctl delete resource prod/image/app
  kbsctl delete resource prod/image/app --version 3
  kbsctl delete refvalue/snp_launch_measurement --ignore-not-found`,
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if k.delete == nil {
				return usagef("a %s cannot be deleted: it is part of the record", k.name)
			}
			if len(names) == 0 {
				return usagef("delete %s: name one", k.name).hint("kbsctl list %s", k.name)
			}
			if k.confirm && (len(names) != 1 || confirm != names[0]) {
				return usagef("deleting a %s destroys all that it has, for good", k.name).hint("kbsctl delete %s NAME --confirm NAME", k.name)
			}
			if version != 0 && (len(names) != 1 || version < 0) {
				return usagef("--version is that of one object, from 1")
			}
			return c.delete(cmd.Context(), k, names, version, ignore)
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "the `NAME` once more, of what cannot be brought back: a tenant")
	cmd.Flags().Int64Var(&version, "version", 0, "`VERSION` that the object must be at (default: the one that it is at)")
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "succeed if there is no such object")
	return cmd
}

func (c *cli) delete(ctx context.Context, k kind, names []string, version int64, ignore bool) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	for _, name := range names {
		err := c.deleteOne(ctx, a, k, name, version)
		if f, ok := errors.AsType[*fault.Fault](err); ok && f.Code == fault.NotFound && ignore {
			continue
		}
		if err != nil {
			return doing(err, "delete %s/%s", k.name, name)
		}
		if err := c.printf("%s/%s deleted\n", k.name, name); err != nil {
			return err
		}
	}
	return nil
}

// deleteOne deletes what is at a version; 0 is the one that it is at now.
func (c *cli) deleteOne(ctx context.Context, a *admin.Client, k kind, name string, version int64) error {
	if version == 0 {
		o, err := k.get(ctx, c, a, name)
		switch {
		case fault.CodeOf(err) == fault.Unsupported:
			version = admin.AnyVersion // a back end that keeps none
		case err != nil:
			return err
		default:
			version = o.version
		}
	}
	return k.delete(ctx, a, name, version)
}

func completeKinds(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return kindNames(), cobra.ShellCompDirectiveNoFileComp
}

// completeObjects completes KIND, then the names that the broker has. A broker
// that cannot be asked within a moment completes nothing.
func (c *cli) completeObjects(ticketsToo bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp
		first, _, slash := strings.Cut(word, "/")
		if len(args) == 0 && !slash {
			if ticketsToo {
				return append(kindNames(), "ticket/"), directive | cobra.ShellCompDirectiveNoSpace
			}
			return kindNames(), directive
		}
		lead := ""
		if len(args) == 0 {
			lead = first + "/"
		} else {
			first, _, _ = strings.Cut(args[0], "/")
		}
		k, err := findKind(first)
		if err != nil {
			return nil, directive
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		found, err := c.objects(ctx, k, nil, listOptions{})
		if err != nil {
			return nil, directive
		}
		var names []string
		for _, o := range found {
			names = append(names, lead+o.name)
		}
		return names, directive
	}
}
