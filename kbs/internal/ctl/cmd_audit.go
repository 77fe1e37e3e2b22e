package ctl

import (
	"context"
	"encoding/json"
	"iter"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify and read the broker's audit log",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.auditVerifyCommand(), c.auditTailCommand(), c.auditQueryCommand(), c.auditExportCommand(),
		c.auditProveCommand(), c.auditArchiveCommand())
	return cmd
}

// queryFlags select entries.
type queryFlags struct {
	q            admin.AuditQuery
	since, until string
}

func (f *queryFlags) flags(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.q.Kind, "kind", "", "show only this `KIND`; \"policy.*\" is all that begin so")
	s.StringVar(&f.q.Decision, "decision", "", "show only this `DECISION`: allow, deny, error or change")
	s.StringVar(&f.q.Tenant, "tenant", "", "show only this `TENANT`")
	s.StringVar(&f.q.Subject, "subject", "", "show only what this `SUBJECT` did; with * at its end all that begin so")
	s.StringVar(&f.q.Object, "object", "", "show only what concerns this `OBJECT`; with * at its end all that begin so")
	s.StringVar(&f.q.Code, "code", "", "show only refusals with this `CODE`")
	s.StringVar(&f.since, "since", "", "show only what is not older: a `TIME` (2026-01-02T15:04:05Z) or an age (90m, 12h, 7d)")
	s.StringVar(&f.until, "until", "", "show only what is older than this `TIME` or age")
	_ = cmd.RegisterFlagCompletionFunc("decision", cobra.FixedCompletions(
		[]string{"allow", "deny", "error", "change"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *queryFlags) query(now time.Time) (admin.AuditQuery, error) {
	var err error
	if f.q.Since, err = parsePast("since", f.since, now); err != nil {
		return f.q, err
	}
	f.q.Until, err = parsePast("until", f.until, now)
	return f.q, err
}

func (c *cli) auditQueryCommand() *cobra.Command {
	var f queryFlags
	var limit int
	cmd := &cobra.Command{
		Use:   "query [--kind KIND] [--subject SUBJECT] [--since TIME]...",
		Short: "Show the entries that match, the oldest first",
		Example: `  kbsctl audit query --decision deny --since 24h
  kbsctl audit query --kind 'policy.*' --subject admin:eve -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query(c.now())
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit must not be negative")
			}
			return c.query(cmd.Context(), q, limit)
		},
	}
	f.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 0, "show at most this `NUMBER` of them (default all)")
	return cmd
}

func (c *cli) query(ctx context.Context, q admin.AuditQuery, limit int) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	found, err := c.collect(a.AuditSearch(ctx, q, 0, -1), limit)
	if err != nil {
		return doing(err, "query the audit log")
	}
	return c.print(found, eventKind().header, true)
}

// collect makes objects of entries, at most limit of them; 0 means all.
func (c *cli) collect(entries iter.Seq2[json.RawMessage, error], limit int) ([]object, error) {
	var found []object
	for raw, err := range entries {
		if err != nil {
			return nil, err
		}
		e, err := entryOf(raw)
		if err != nil {
			return nil, err
		}
		found = append(found, c.eventObject(e, raw))
		if len(found) == limit {
			break
		}
	}
	return found, nil
}

func (c *cli) auditTailCommand() *cobra.Command {
	var f queryFlags
	var n int
	var follow bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "tail [-n N] [-f]",
		Short: "Show the newest entries",
		Long: `Show the newest entries, and with -f those that come until it is interrupted. The
flags that select apply to the newest N as well: fewer may be shown. While it
follows, -o json writes one entry a line.`,
		Example: `  kbsctl audit tail -n 20
  kbsctl audit tail -f --decision deny
  kbsctl audit tail -f -o json | jq .subject`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query(c.now())
			if err != nil {
				return err
			}
			if n < 1 {
				return usagef("-n must be at least 1")
			}
			if every < 10*time.Millisecond {
				return usagef("--every must be at least 10ms")
			}
			return c.tail(cmd.Context(), q, int64(n), follow, every)
		},
	}
	f.flags(cmd)
	cmd.Flags().IntVarP(&n, "lines", "n", 10, "look at this `NUMBER` of entries")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	everyFlag(cmd, &every)
	return cmd
}

func (c *cli) tail(ctx context.Context, q admin.AuditQuery, n int64, follow bool, every time.Duration) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	end, err := a.AuditPage(ctx, q, math.MaxInt64, 1)
	if err != nil {
		return doing(err, "read the audit log")
	}
	found, err := c.collect(a.AuditSearch(ctx, q, max(0, end.Size-n), end.Size), 0)
	if err != nil {
		return doing(err, "read the audit log")
	}
	if !follow {
		return c.print(found, eventKind().header, true)
	}
	if err := c.printStream(found); err != nil {
		return err
	}
	c.flags.noHeaders = true
	return c.follow(ctx, a, q, end.Size, every)
}

// follow prints what is appended until ctx ends, which is no error: somebody
// had enough.
func (c *cli) follow(ctx context.Context, a *admin.Client, q admin.AuditQuery, from int64, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		for more := true; more; {
			page, err := a.AuditPage(ctx, q, from, followPage)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return doing(err, "follow the audit log")
			}
			var found []object
			for _, raw := range page.Entries {
				e, err := entryOf(raw)
				if err != nil {
					return err
				}
				found = append(found, c.eventObject(e, raw))
			}
			if err := c.printStream(found); err != nil {
				return err
			}
			from, more = max(from, page.Next), page.More
		}
	}
}

// followPage is how many entries are asked for at once.
const followPage = 200

// printStream prints a part of a list whose end nobody knows.
func (c *cli) printStream(found []object) error {
	if c.flags.output != "json" {
		if len(found) == 0 && c.flags.noHeaders {
			return nil
		}
		return c.print(found, eventKind().header, true)
	}
	for _, o := range found {
		raw, ok := o.data.(json.RawMessage)
		if !ok {
			continue
		}
		if err := c.printf("%s\n", escapeUnprintable(raw)); err != nil {
			return err
		}
	}
	return nil
}
