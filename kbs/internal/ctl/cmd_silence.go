package ctl

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func (c *cli) silenceCommand() *cobra.Command {
	var s api.Silence
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "silence ticketgroup/ID --reason WHY [--for DURATION]",
		Short: "Leave a cause of refusals out of the list for a time",
		Long: `Leave a group of tickets out of the list for a time, because somebody knows about
it. Its refusals go on being recorded, counted and audited; kbsctl get
ticketgroups --all shows it, with the reason.`,
		Example:           `  kbsctl silence ticketgroup/k3yqzr5tw2hd4m6p --for 24h --reason 'team b updates its image'`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeTicketGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Until = c.now().Add(last)
			return c.onTicketGroup(args[0], "silence", func(a *admin.Client, id string) error {
				done, err := a.SilenceTicketGroup(cmd.Context(), id, s)
				switch {
				case err != nil:
					return err
				case c.flags.output != "table":
					return c.printData(done)
				}
				return c.printf("ticketgroup/%s silenced until %s\n", id, stamp(done.Until, c.now()))
			})
		},
	}
	cmd.Flags().StringVar(&s.Reason, "reason", "", "`REASON`, which stands in the list")
	spanFlag(cmd.Flags(), &last, "for", 24*time.Hour, "silence it for this `DURATION`, at most 90d")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func (c *cli) unsilenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unsilence ticketgroup/ID",
		Short:             "List a cause of refusals again",
		Example:           "  kbsctl unsilence ticketgroup/k3yqzr5tw2hd4m6p",
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeTicketGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onTicketGroup(args[0], "unsilence", func(a *admin.Client, id string) error {
				if err := a.UnsilenceTicketGroup(cmd.Context(), id); err != nil {
					return err
				}
				return c.printf("ticketgroup/%s is listed again\n", id)
			})
		},
	}
}

func (c *cli) onTicketGroup(arg, doing1 string, do func(a *admin.Client, id string) error) error {
	k, names, err := target([]string{arg})
	if err != nil {
		return err
	}
	if k.name != "ticketgroup" || len(names) != 1 {
		return usagef("%s takes ticketgroup/ID, not %q", doing1, arg).hint("kbsctl get ticketgroups")
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	if err := do(a, names[0]); err != nil {
		return doing(err, "%s ticketgroup/%s", doing1, names[0])
	}
	return nil
}

func (c *cli) completeTicketGroups(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeObjects(false)(cmd, nil, "ticketgroup/")
}
