package ctl

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// tenantFlags are what can be said about a tenant.
type tenantFlags struct {
	hosts, approvals, quotas []string
}

func (f *tenantFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.hosts, "host", nil, "host `NAME` whose requests are for it (repeatable; replaces the list)")
	cmd.Flags().StringArrayVar(&f.approvals, "approval", nil, "`CHANGE` that needs a second person: policy.put, policy.*, * (repeatable; replaces the list; - for none)")
	cmd.Flags().StringArrayVar(&f.quotas, "quota", nil, "`NAME=LIMIT` of resources, bytes, policies, refvalues, sessions or releases; LIMIT may be default or none (repeatable)")
}

// apply says what the flags say.
func (f *tenantFlags) apply(t *api.Tenant) error {
	list := func(from []string) []string {
		return slices.DeleteFunc(slices.Clone(from), func(s string) bool { return s == "-" })
	}
	if f.hosts != nil {
		t.Hosts = list(f.hosts)
	}
	if f.approvals != nil {
		t.Approvals = list(f.approvals)
	}
	for _, text := range f.quotas {
		name, limit, _ := strings.Cut(text, "=")
		all := tenantQuotas(&t.Quotas)
		i := slices.IndexFunc(all, func(q quota) bool { return q.name == name })
		n, err := strconv.ParseInt(limit, 10, 64)
		switch {
		case limit == "default":
			n, err = 0, nil
		case limit == "none":
			n, err = -1, nil
		case err == nil && n < 1:
			err = strconv.ErrRange
		}
		if i < 0 || err != nil {
			return usagef("--quota %q: want NAME=LIMIT", text).hint("NAME is resources, bytes, policies, refvalues, sessions or releases; LIMIT a number, default or none")
		}
		*all[i].limit = n
	}
	return nil
}

func (c *cli) createTenantCommand() *cobra.Command {
	var f tenantFlags
	cmd := &cobra.Command{
		Use:   "tenant NAME",
		Short: "Let one more share the broker",
		Example: `  kbsctl create tenant team-a --host kbs.team-a.example --quota resources=100
  kbsctl create tenant team-b --approval 'policy.*' --approval resource.delete`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t := api.Tenant{Name: args[0]}
			if err := f.apply(&t); err != nil {
				return err
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			stored, err := a.PutTenant(cmd.Context(), t)
			if err != nil {
				return doing(err, "create tenant/%s", args[0])
			}
			return c.made(c.tenantObject(stored), false)
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) setTenantCommand() *cobra.Command {
	var f tenantFlags
	cmd := &cobra.Command{
		Use:   "tenant NAME FLAGS",
		Short: "Change what is said about a tenant",
		Long: `Change what is said about a tenant; what no flag names stays. Somebody else's
change in between is a conflict.`,
		Example: `  kbsctl set tenant team-a --quota bytes=none --approval '*'
  kbsctl set tenant team-a --approval -`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.hosts == nil && f.approvals == nil && f.quotas == nil {
				return usagef("there is nothing to set").hint("%s --help", cmd.CommandPath())
			}
			return c.changeTenant(cmd, args[0], "set", configured, f.apply)
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) completeTenants(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeObjects(false)(cmd, []string{"tenant"}, word)
}

func (c *cli) suspendCommand() *cobra.Command {
	return c.stateCommand("suspend", "suspended", api.TenantSuspended, "Make a tenant as if it did not exist, and keep what it has")
}

func (c *cli) resumeCommand() *cobra.Command {
	return c.stateCommand("resume", "resumed", api.TenantActive, "Let a suspended tenant take part again")
}

func (c *cli) stateCommand(verb, done, state, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " tenant NAME",
		Short:             short,
		Example:           "  kbsctl " + verb + " tenant team-a",
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if k.name != "tenant" || len(names) != 1 {
				return usagef("%s takes one tenant", verb).hint("kbsctl %s tenant NAME", verb)
			}
			return c.changeTenant(cmd, names[0], verb, done, func(t *api.Tenant) error {
				t.State = state
				return nil
			})
		},
	}
}

func (c *cli) changeTenant(cmd *cobra.Command, name, verb, done string, change func(*api.Tenant) error) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	t, err := a.Tenant(cmd.Context(), name)
	if err != nil {
		return doing(err, "%s tenant/%s", verb, name)
	}
	t.Usage = nil
	if err := change(&t); err != nil {
		return err
	}
	if _, err = a.PutTenant(cmd.Context(), t); err != nil {
		return doing(err, "%s tenant/%s", verb, name)
	}
	return c.printf("tenant/%s %s\n", name, done)
}
