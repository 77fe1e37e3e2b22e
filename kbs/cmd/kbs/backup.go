package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/archive"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

func (p *program) backupCommand() *cobra.Command {
	var from settings
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole store to a file, while the broker runs",
		Long: `Write the whole store to a new file, while the broker runs: one moment of it,
the same for every engine, with a checksum.

Secrets are in it as they are in the store, sealed under the master key, which
is not in it: keep that elsewhere, or nothing will ever open them. Policies,
reference values and the audit log are readable; the file has mode 0600.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := p.load(from)
			if err != nil {
				return err
			}
			return p.backup(cmd.Context(), cfg.Config, args[0])
		},
	}
	from.flags(cmd.Flags())
	return cmd
}

func (p *program) backup(ctx context.Context, cfg config.Config, path string) (err error) {
	plan, err := broker.StorePlan(ctx, cfg)
	switch {
	case err != nil:
		return err
	case plan.Have == 0:
		return fault.Newf(fault.NotFound, "there is no store: %s", plan.Engine)
	case plan.Pending():
		return fmt.Errorf("the store has schema %d, and this program makes backups of schema %d: kbs migrate", plan.Have, plan.Want)
	}
	st, err := broker.OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	whole, err := archive.Of(st)
	if err != nil {
		return err
	}
	var counts archive.Counts
	err = newFile(path, func(f *os.File) (err error) {
		counts, err = archive.Write(ctx, f, archive.Header{Created: time.Now(), Program: "vouchsafe-kbs " + version.Here().Short()}, whole)
		return err
	})
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.io.err, "%d records, %d bytes, in %s\nThe master key is not in it.\n", counts.Records, counts.Bytes, path)
	return nil
}

// newFile makes a file with mode 0600 that appears whole, on disk, or not at
// all. It replaces none.
func newFile(path string, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fault.Newf(fault.Conflict, "%s exists", path)
		}
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (p *program) restoreCommand() *cobra.Command {
	var from settings
	var check, replace bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Fill an empty store from a backup, of whichever engine",
		Long: `Fill an empty store from a backup, whole or not at all. The backup may come from
another engine: so a broker moves from SQLite to PostgreSQL. Stop the brokers of
the store first, and bring the master key along. The next broker to start
records the restore in the audit log.

With --check it reads the whole backup and changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			if check {
				_, _, err := p.check(f)
				return err
			}
			cfg, err := p.load(from)
			if err != nil {
				return err
			}
			return p.restore(cmd.Context(), cfg.Config, f, replace)
		},
	}
	from.flags(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check", false, "only read the backup and compare its checksum")
	cmd.Flags().BoolVar(&replace, "replace", false, "delete all that the store holds, the audit log too")
	return cmd
}

func (p *program) check(f *os.File) (archive.Header, archive.Counts, error) {
	h, c, err := archive.Check(f)
	if err != nil {
		return h, c, fmt.Errorf("%s: %w", f.Name(), err)
	}
	_, _ = fmt.Fprintf(p.io.err, "%s is whole: %d records, %d bytes, made %s by %s\n",
		f.Name(), c.Records, c.Bytes, h.Created.Format(time.RFC3339), h.Program)
	return h, c, nil
}

func (p *program) restore(ctx context.Context, cfg config.Config, f *os.File, replace bool) (err error) {
	h, c, err := p.check(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	note, err := broker.RestoreNote(h, c, time.Now())
	if err != nil {
		return err
	}
	st, err := broker.OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	whole, err := archive.Of(st)
	if err != nil {
		return err
	}
	_, err = archive.Restore(ctx, f, whole, replace, note)
	if errors.Is(err, archive.ErrNotEmpty) {
		return fault.Newf(fault.Conflict, "%w; --replace would delete what it holds", err)
	}
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.io.err, "%d records restored; the next start of a broker records it in the audit log\n", c.Records)
	return nil
}

func (p *program) migrateCommand() *cobra.Command {
	var from settings
	var planOnly bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the schema of the store up to date",
		Long: `Bring the schema of the store up to date, in one transaction. A broker that
starts does so too; with --plan nothing is done, and what would be is shown.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.load(from)
			if err != nil {
				return err
			}
			return p.migrate(cmd.Context(), cfg.Config, planOnly)
		},
	}
	from.flags(cmd.Flags())
	cmd.Flags().BoolVar(&planOnly, "plan", false, "only show what would be done")
	return cmd
}

func (p *program) migrate(ctx context.Context, cfg config.Config, planOnly bool) error {
	plan, err := broker.StorePlan(ctx, cfg)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.io.out, "%s: schema %d, this program has %d\n", plan.Engine, plan.Have, plan.Want)
	for i, what := range plan.Steps {
		_, _ = fmt.Fprintf(p.io.out, "  %d  %s\n", plan.Have+i+1, what)
	}
	if planOnly || plan.Have == plan.Want {
		return nil
	}
	st, err := broker.OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	return st.Close()
}
