package ctl

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
)

var exports = []string{"jsonl", "ocsf", "csv"}

func (c *cli) auditExportCommand() *cobra.Command {
	var from int64
	var checkpoint string
	cmd := &cobra.Command{
		Use:   "export [-o jsonl|ocsf|csv] [--from INDEX | --checkpoint FILE]",
		Short: "Write the log to stdout, one entry a line",
		Long: `Write the log to stdout, one entry a line: as the canonical JSON that its leaf
hash covers (jsonl, the default), as an event of the Open Cybersecurity Schema
Framework (ocsf), or as a table for spreadsheets (csv). In a table, cells that
a spreadsheet would take for a formula begin with an apostrophe.

With --checkpoint the signed checkpoint goes to that file, and the export is
exactly the log that it covers: audit verify --file can check it.`,
		Example: `  kbsctl audit export --checkpoint log.note > log.jsonl
  kbsctl audit export --from 182044 | jq 'select(.decision == "deny")'
  kbsctl audit export -o csv > log.csv`,
		Args: noArgs,
		// The formats are of this command alone.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("output") {
				c.flags.output = exports[0]
			}
			if !slices.Contains(exports, c.flags.output) {
				return usagef("an export is no %q", c.flags.output).hint("-o %s", strings.Join(exports, "|"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from < 0 {
				return usagef("--from must not be negative")
			}
			if checkpoint != "" && c.flags.output != exports[0] {
				return usagef("--checkpoint belongs to -o %s: nothing else verifies", exports[0])
			}
			return c.export(cmd.Context(), from, checkpoint)
		},
	}
	cmd.Flags().Int64Var(&from, "from", 0, "start with the entry of this `INDEX`")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "write the checkpoint of the log to this `FILE`")
	cmd.MarkFlagsMutuallyExclusive("from", "checkpoint")
	return cmd
}

func (c *cli) export(ctx context.Context, from int64, checkpoint string) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	note, err := a.AuditCheckpoint(ctx)
	if err != nil {
		return doing(err, "fetch the checkpoint")
	}
	size, err := sizeOf(note)
	if err != nil {
		return err
	}
	origin, _, _ := strings.Cut(string(note), "\n")
	write, finish := exporter(c.flags.output, c.stdio.Out, origin)
	for raw, err := range a.AuditEntries(ctx, from, size) {
		if err != nil {
			return doing(err, "fetch the entries")
		}
		if err := write(raw); err != nil {
			return err
		}
	}
	if err := finish(); err != nil || checkpoint == "" {
		return err
	}
	return replaceFile(checkpoint, note)
}

// exporter returns what writes one entry, and what is to be called at the end.
func exporter(format string, out io.Writer, origin string) (write func(json.RawMessage) error, finish func() error) {
	line := func(b []byte) error {
		_, err := fmt.Fprintf(out, "%s\n", b)
		return err
	}
	none := func() error { return nil }
	switch format {
	case "ocsf":
		source := ocsf.Source{Log: origin, Version: "unknown"} // the log does not tell the broker's version
		return func(raw json.RawMessage) error {
			e, err := entryOf(raw)
			if err != nil {
				return err
			}
			b, err := json.Marshal(source.Event(e, raw))
			if err != nil {
				return err
			}
			return line(b)
		}, none
	case "csv":
		w := csv.NewWriter(out)
		_ = w.Write([]string{"index", "time", "tenant", "kind", "decision", "code", "ticket", "subject", "object", "details"}) // Flush tells
		return func(raw json.RawMessage) error {
				e, err := entryOf(raw)
				if err != nil {
					return err
				}
				return w.Write(csvRow(e))
			}, func() error {
				w.Flush()
				return w.Error()
			}
	}
	return func(raw json.RawMessage) error { return line(raw) }, none
}

func entryOf(raw json.RawMessage) (api.AuditEntry, error) {
	var e api.AuditEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fault.Newf(fault.Unavailable, "an audit entry is not what this client expects: %w", err)
	}
	return e, nil
}

func csvRow(e api.AuditEntry) []string {
	details := ""
	if len(e.Details) > 0 {
		b, _ := json.Marshal(e.Details) // texts always encode
		details = string(b)
	}
	row := []string{
		strconv.FormatInt(e.Index, 10), e.Time.UTC().Format(time.RFC3339Nano), e.Tenant, string(e.Kind), e.Decision,
		e.Code, e.Ticket, e.Subject, e.Object, details,
	}
	for i, cell := range row {
		if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
			row[i] = "'" + cell // guests choose some of these texts
		}
	}
	return row
}

func (c *cli) auditProveCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "prove INDEX [--out FILE]",
		Short: "Export one entry with the proof that it is in the log",
		Long: `Export one entry with the proof that it is in the log: the entry, the hashes that
lead from it to the root of the tree, the signed checkpoint, and the hand-overs
of the signing key. Whoever has a key of the log can check it without a broker,
and learns nothing of any other entry:

  kbsctl audit verify --proof FILE --key audit.pub`,
		Example: `  kbsctl audit prove 182044 --out entry-182044.json`,
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || index < 0 {
				return usagef("an entry's name is its index in the audit log, not %q", args[0])
			}
			return c.prove(cmd.Context(), index, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write to this `FILE` instead of stdout")
	return cmd
}

func (c *cli) prove(ctx context.Context, index int64, out string) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	bundle, err := fetchProof(ctx, a, index)
	if err != nil {
		return doing(err, "prove event/%d", index)
	}
	raw, err := bundle.Encode()
	if err != nil {
		return err
	}
	if out == "" {
		_, err = c.stdio.Out.Write(raw)
		return err
	}
	return os.WriteFile(out, raw, 0o600)
}

// fetchProof asks for the checkpoint first: the log only grows meanwhile, and
// a key that is rotated meanwhile still speaks for what it signed.
func fetchProof(ctx context.Context, a *admin.Client, index int64) (audit.Bundle, error) {
	note, err := a.AuditCheckpoint(ctx)
	if err != nil {
		return audit.Bundle{}, err
	}
	size, err := sizeOf(note)
	if err != nil {
		return audit.Bundle{}, err
	}
	if index >= size {
		return audit.Bundle{}, fault.Newf(fault.NotFound, "the log has %d entries", size)
	}
	page, err := a.AuditPage(ctx, admin.AuditQuery{}, index, 1)
	if err != nil {
		return audit.Bundle{}, err
	}
	if len(page.Entries) != 1 {
		return audit.Bundle{}, fault.Newf(fault.NotFound, "the broker shows no entry %d", index)
	}
	if e, err := entryOf(page.Entries[0]); err != nil || e.Index != index {
		return audit.Bundle{}, fault.Newf(fault.NotFound, "the broker shows no entry %d", index)
	}
	b := audit.Bundle{Entry: page.Entries[0], Checkpoint: string(note)}
	if b.Proof, err = a.AuditInclusion(ctx, index, size); err != nil {
		return b, err
	}
	keys, err := a.AuditKeys(ctx)
	b.Handovers = keys.Handovers
	return b, err
}
