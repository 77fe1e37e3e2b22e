package ctl

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func approvalKind() kind {
	return kind{
		name: "approval", aliases: []string{"approvals"},
		header: []string{"ID", "STATE", "ACTION", "REQUEST", "AUTHOR", "DECIDER", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.Approvals(ctx)
			return listed(all, o, c.approvalObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, id string) (object, error) {
			p, err := a.Approval(ctx, id)
			return c.approvalObject(p), err
		},
		schema: approvalSchema,
	}
}

const approvalSchema = `kind approval
  A change that waits for a second person, because its tenant wants one for it,
  or that did.

  state    pending, approved (being made), executed, failed, denied, withdrawn,
           expired
  action   such as policy.put; request is what was asked, and by whom
  seen     the version of the object then; if it has another one since, the
           change is not made
  body     what would be written, unless that is a secret; sha256 is of all of it
  decider  who approved or denied it, with the reason

  kbsctl approve approval/ID, kbsctl deny approval/ID`

func (c *cli) approvalObject(p api.Approval) object {
	request := p.Method + " " + p.Path
	return object{
		kind: "approval", name: p.ID, data: p,
		row: []string{p.ID, p.State, p.Action, request, p.Author, p.Decider, age(p.Created, c.now())},
		describe: func(s *sheet) {
			s.line("approval", p.ID)
			s.line("state", p.State)
			s.line("action", p.Action)
			s.line("request", request)
			if p.Seen != nil {
				s.line("seen", "version "+strconv.FormatInt(*p.Seen, 10))
			}
			s.line("author", p.Author)
			s.line("asked", stamp(p.Created, c.now()))
			s.line("expires", stamp(p.Expires, c.now()))
			s.line("decider", p.Decider)
			s.line("reason", p.Reason)
			s.line("decided", stamp(p.Decided, c.now()))
			if p.Status != 0 {
				s.line("answer", fmt.Sprintf("%d %s", p.Status, p.Code))
			}
			s.line("sha256", p.SHA256)
			s.line("size", fmt.Sprintf("%d bytes", p.Size))
			s.block("body", p.Body)
		},
	}
}

func (c *cli) approveCommand() *cobra.Command {
	return c.decideCommand("approve", "Let the broker make a change that somebody else asked for",
		func(ctx context.Context, a *admin.Client, id, reason string) (api.Approval, error) {
			return a.Approve(ctx, id, reason)
		})
}

func (c *cli) denyCommand() *cobra.Command {
	return c.decideCommand("deny", "Deny a change that waits, or withdraw one's own",
		func(ctx context.Context, a *admin.Client, id, reason string) (api.Approval, error) {
			return a.Deny(ctx, id, reason)
		})
}

func (c *cli) decideCommand(verb, short string, decide func(ctx context.Context, a *admin.Client, id, reason string) (api.Approval, error)) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:               verb + " approval/ID",
		Short:             short,
		Example:           "  kbsctl describe approval/k3jd7c2m5q4a\n  kbsctl " + verb + " approval/k3jd7c2m5q4a --reason 'reviewed with the team'",
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if k.name != "approval" || len(names) != 1 {
				return usagef("%s takes one approval", verb).hint("kbsctl %s approval/ID", verb)
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			p, err := decide(cmd.Context(), a, names[0], reason)
			if err != nil {
				return doing(err, "%s approval/%s", verb, names[0])
			}
			if c.flags.output != "table" {
				return c.print([]object{c.approvalObject(p)}, k.header, false)
			}
			return c.printf("approval/%s %s\n", p.ID, p.State)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`REASON`, for the audit log")
	return cmd
}
