package ctl

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Choose between brokers",
		Long: `Contexts are kept in $XDG_CONFIG_HOME/kbs/config.yaml (~/.config/kbs/config.yaml).
A flag wins over an environment variable, and that over the context.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.getContextsCommand(), c.useContextCommand(), c.setContextCommand())
	return cmd
}

func (c *cli) getContextsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "get-contexts",
		Short:   "List the contexts",
		Example: "  kbsctl config get-contexts",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := loadConfig(configPath(c.env))
			if err != nil {
				return err
			}
			var objects []object
			for _, x := range cfg.Contexts {
				mark := ""
				if x.Name == firstOf(c.flags.context, c.env("KBS_CONTEXT"), cfg.CurrentContext) {
					mark = "*"
				}
				objects = append(objects, object{
					kind: "context", name: x.Name, data: x,
					row: []string{mark, x.Name, x.Server, x.Tenant, x.CA, x.TokenFile, x.LogKey},
				})
			}
			return c.print(objects, []string{"CURRENT", "NAME", "SERVER", "TENANT", "CA", "TOKEN-FILE", "LOG-KEY"}, true)
		},
	}
}

func (c *cli) useContextCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use-context NAME",
		Short:             "Make a context the one that is meant by default",
		Example:           "  kbsctl config use-context prod",
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := loadConfig(configPath(c.env))
			if err != nil {
				return err
			}
			if _, ok := cfg.find(args[0]); !ok {
				return usagef("there is no context %q in %s", args[0], cfg.path).hint("kbsctl config get-contexts")
			}
			cfg.CurrentContext = args[0]
			if err := cfg.save(); err != nil {
				return err
			}
			return c.printf("context/%s is now used\n", args[0])
		},
	}
}

func (c *cli) setContextCommand() *cobra.Command {
	var logKey string
	cmd := &cobra.Command{
		Use:   "set-context NAME [--server URL] [--tenant NAME] [--ca FILE] [--token-file FILE] [--log-key FILE]",
		Short: "Add a context or change one",
		Long: `Add a context or change the parts of one that are given. The first context
becomes the current one. Paths are kept absolute.`,
		Example: `  kbsctl config set-context prod --server https://kbs.example:8081 \
      --ca prod-ca.pem --token-file ~/.kbs/prod.token --log-key prod-audit.pub`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := loadConfig(configPath(c.env))
			if err != nil {
				return err
			}
			x := brokerContext{Name: args[0], Server: c.flags.server, Tenant: c.flags.tenant}
			for _, p := range []struct {
				to   *string
				from string
			}{{&x.CA, c.flags.ca}, {&x.TokenFile, c.flags.tokenFile}, {&x.LogKey, logKey}} {
				if p.from == "" {
					continue
				}
				if *p.to, err = filepath.Abs(p.from); err != nil {
					return err
				}
			}
			what := "changed"
			if cfg.set(x) {
				what = "created"
			}
			if cfg.CurrentContext == "" {
				cfg.CurrentContext = x.Name
			}
			if err := cfg.save(); err != nil {
				return err
			}
			return c.printf("context/%s %s\n", x.Name, what)
		},
	}
	cmd.Flags().StringVar(&logKey, "log-key", "", "`FILE` with the key of the broker's audit log")
	return cmd
}

func (c *cli) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cfg, err := loadConfig(configPath(c.env))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, x := range cfg.Contexts {
		names = append(names, x.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// printf writes data to stdout.
func (c *cli) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.stdio.Out, format, args...)
	return err
}

// warnf writes a message to stderr.
func (c *cli) warnf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.stdio.Err, "kbsctl: "+format+"\n", args...)
}
