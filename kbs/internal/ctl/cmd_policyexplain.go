package ctl

import (
	"context"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// explainPolicy lists the rules of a policy: what a line number in a ticket
// belongs to, and what the rule wants to see.
func (c *cli) explainPolicy(ctx context.Context, name string) error {
	return c.onPolicy(ctx, name, func(ctx context.Context, a *admin.Client, kind, id string) error {
		p, err := a.Policy(ctx, kind, id)
		if err != nil {
			return doing(err, "explain policy/%s", name)
		}
		rules, err := policy.Outline(policy.Kind(kind), p.Rego)
		if err != nil {
			return doing(err, "explain policy/%s", name)
		}
		if c.flags.output != "table" {
			return c.printData(map[string]any{"policy": name, "version": p.Version, "rules": rules})
		}
		rows := make([][]string, len(rules))
		for i, r := range rules {
			lines := make([]string, len(r.Lines))
			for j, n := range r.Lines {
				lines[j] = strconv.Itoa(n)
			}
			rows[i] = []string{r.Rule, strings.Join(lines, ","), strings.Join(r.Reads, " "), strings.Join(r.References, " ")}
		}
		if err := c.printf("policy/%s version %d, %s\n", name, p.Version, p.Stage); err != nil {
			return err
		}
		return c.printTable([]string{"RULE", "LINES", "READS", "REFERENCE VALUES"}, rows)
	})
}
