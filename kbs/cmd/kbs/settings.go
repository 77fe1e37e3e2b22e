package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// settings are where a command takes its configuration from.
type settings struct {
	path, state string
}

// flags adds the flags.
func (s *settings) flags(f *pflag.FlagSet) {
	f.StringVarP(&s.path, "config", "c", "", "configuration `FILE`, TOML, YAML or JSON (env KBS_CONFIG_FILE)")
	f.StringVar(&s.path, "config-file", "", "`FILE`: the same, as Trustee's KBS names it")
	f.StringVar(&s.state, "state", "", "`DIR` of the state: goes before state_dir of the file")
}

// file is the configuration file, "" if there is none.
func (p *program) file(s settings) string { return cmp.Or(s.path, p.getenv("KBS_CONFIG_FILE")) }

// load joins all sources of the configuration.
func (p *program) load(s settings) (config.Loaded, error) {
	var set []config.Set
	if s.state != "" {
		set = append(set, config.Set{Flag: "--state", Key: "state_dir", Value: s.state})
	}
	return config.Read(p.file(s), p.getenv, set...)
}

func (p *program) configCommand() *cobra.Command {
	var s settings
	var noFiles bool
	cmd := &cobra.Command{Use: "config", Short: "Check, show or describe the configuration", Args: cobra.NoArgs, RunE: needsCommand}
	s.flags(cmd.PersistentFlags())
	validate := &cobra.Command{
		Use:   "validate",
		Short: "Report everything that is wrong with the configuration and the files it names",
		Long: `Report everything that is wrong with the configuration and the files that it
names, certificates and keys, and which checks it waives. Nobody is asked over a
network, and nothing is made.`,
		Example: `  kbs config validate --config kbs.toml
  kbs config validate --config kbs.toml --no-files   # on a machine that has none of them`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := p.load(s)
			if err != nil {
				return err
			}
			if !noFiles {
				err = cfg.CheckFiles(time.Now())
			}
			if err != nil {
				return err
			}
			for _, w := range cfg.Insecure() {
				_, _ = fmt.Fprintln(p.io.err, "warning: in force:", w)
			}
			_, err = fmt.Fprintln(p.io.err, "the configuration is valid")
			return err
		},
	}
	validate.Flags().BoolVar(&noFiles, "no-files", false, "leave the files alone that the configuration names")
	cmd.AddCommand(validate, &cobra.Command{
		Use:   "dump",
		Short: "Print the configuration in force and where each value comes from",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := p.load(s)
			if err != nil {
				return err
			}
			return p.print(cfg.Dump())
		},
	}, &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a configuration file, for editors",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return p.print(config.Schema()) },
	})
	return cmd
}

func (p *program) print(raw []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = p.io.out.Write(raw)
	return err
}
