package ctl

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

func (c *cli) policyTemplateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "template",
		Short: "Policies by intent, to start from",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.templateListCommand(), c.templateShowCommand())
	return cmd
}

func (c *cli) templateListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the templates",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := policy.Templates()
			if err != nil {
				return err
			}
			if c.flags.output != "table" {
				return c.printData(map[string]any{"items": all})
			}
			rows := make([][]string, len(all))
			for i, t := range all {
				rows[i] = []string{t.Name, string(t.Kind), strings.Join(slices.Sorted(maps.Keys(t.Sets)), ","), t.Summary}
			}
			return c.printTable([]string{"NAME", "KIND", "SETS", "WHAT"}, rows)
		},
	}
}

func (c *cli) templateShowCommand() *cobra.Command {
	var set []string
	cmd := &cobra.Command{
		Use:   "show NAME [--set SET=VALUE...]",
		Short: "Print a template, with its sets filled in",
		Example: `  kbsctl policy template show image-digest --set digests=sha256:0f3a... > release.rego
  kbsctl policy template show namespace --set namespaces=shop --set namespaces=pay |
    kbsctl create policy resource/resource/prod --from-file -`,
		Args: exactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			all, _ := policy.Templates()
			names := make([]string, len(all))
			for i, t := range all {
				names[i] = t.Name
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := policy.Templates()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(all, func(t policy.Template) bool { return t.Name == args[0] })
			if i < 0 {
				return usagef("there is no template %q", args[0]).hint("kbsctl policy template list")
			}
			sets := map[string][]string{}
			for _, s := range set {
				name, value, ok := strings.Cut(s, "=")
				if !ok {
					return usagef("--set is SET=VALUE, not %q", s)
				}
				sets[name] = append(sets[name], value)
			}
			text, err := all[i].Fill(sets)
			if err != nil {
				return usagef("%w", err)
			}
			return c.printf("%s", text)
		},
	}
	cmd.Flags().StringArrayVar(&set, "set", nil, "`SET=VALUE` puts a value into a set (repeatable)")
	return cmd
}
