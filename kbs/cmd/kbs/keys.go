package main

import (
	"context"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

func (p *program) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Look after the master key that everything is sealed under",
		Args:  cobra.NoArgs,
		RunE:  needsCommand,
	}
	cmd.AddCommand(p.keysListCommand(), p.keysMakeCommand(), p.keysRotateCommand())
	return cmd
}

func (p *program) keysListCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the master keys that the store is or was under",
		Long: `List the master keys that the store is or was under, also when one of them is
missing and no broker can start. Something may be under every key that is not
retired: it is needed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.load(s)
			if err != nil {
				return err
			}
			k, err := broker.MasterKeys(cmd.Context(), cfg.Config)
			if err != nil {
				return err
			}
			return p.showKeys(k)
		},
	}
	s.flags(cmd.Flags())
	return cmd
}

func (p *program) showKeys(k broker.KeyState) error {
	w := tabwriter.NewWriter(p.io.out, 0, 8, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tSTATE\tSINCE")
	for _, key := range k.Keys {
		state := "opening"
		switch {
		case key.ID == k.Current:
			state = "current"
		case !key.Retired.IsZero():
			state = "retired"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", key.ID, state, key.Since.UTC().Format(time.RFC3339))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, key := range k.Progress.Failed {
		_, _ = fmt.Fprintf(p.io.err, "this record opens under no key: %s\n", key)
	}
	if n := k.Progress.FailedCount; n > 0 {
		return fmt.Errorf("%d records open under no key; the former keys are not retired", n)
	}
	return nil
}

func (p *program) keysMakeCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "make-master",
		Short: "Make a key file to rotate to, beside the first one",
		Long: `Make a key file beside the first one and print its id and its path. Nothing is
sealed under it yet. Replicas that share a database need the same file, under
the same name, before a rotation names the key:

  kbs keys make-master
  kbs keys rotate-master --to ID     or: kbsctl rotate masterkey --to ID`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.load(s)
			if err != nil {
				return err
			}
			id, path, err := broker.MakeMasterKey(cmd.Context(), cfg.Config)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.io.out, "%s %s\n", id, path)
			return err
		},
	}
	s.flags(cmd.Flags())
	return cmd
}

func (p *program) keysRotateCommand() *cobra.Command {
	var s settings
	var to string
	cmd := &cobra.Command{
		Use:   "rotate-master",
		Short: "Seal everything under another master key",
		Long: `Seal everything under another master key, and return when nothing is under the
former one. Brokers may go on serving meanwhile; kbsctl rotate masterkey does
the same over their API. If the command is stopped, the next broker or the next
run goes on where it was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.load(s)
			if err != nil {
				return err
			}
			return p.rotate(cmd.Context(), cfg, to)
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "`ID` of a key that make-master made, or that the configuration names; default: make one")
	return cmd
}

func (p *program) rotate(ctx context.Context, cfg config.Loaded, to string) error {
	log := slog.New(slog.NewJSONHandler(p.io.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	k, err := broker.RotateMasterKey(ctx, cfg.Config, broker.Options{Logger: log, Now: time.Now, Version: version.Here().Short()}, to)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.io.err, "%d records moved\n", k.Progress.Moved)
	return p.showKeys(k)
}
