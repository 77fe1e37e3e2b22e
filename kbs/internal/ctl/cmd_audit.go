package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
)

func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify and read the broker's audit log",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.auditVerifyCommand(), c.auditTailCommand(), c.auditExportCommand())
	return cmd
}

const auditVerifyLong = `Fetch the whole log, recompute its Merkle tree and compare that with the
checkpoint that the broker signed. The checkpoint is remembered under
$XDG_STATE_HOME/kbs/checkpoints, and the next time the log must continue the
history that was seen this time. Any mismatch is exit code 3.

The key must reach you by another way than through the broker (kbs serve writes
audit.pub to its state directory): a broker that lies would also lie about the
key. Without --log-key and without a log-key in the context, the broker's own
answer is used, with a warning.

With --file and --checkpoint, an export is verified and no broker is asked.`

func (c *cli) auditVerifyCommand() *cobra.Command {
	var logKey, file, checkpoint string
	cmd := &cobra.Command{
		Use:   "verify [--log-key FILE]",
		Short: "Prove that no entry was changed or dropped",
		Long:  auditVerifyLong,
		Example: `  kbsctl audit verify --log-key audit.pub
  kbsctl audit verify --log-key audit.pub --file log.jsonl --checkpoint log.note`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (file == "") != (checkpoint == "") {
				return usagef("--file and --checkpoint belong together")
			}
			if file != "" {
				return c.verifyExport(logKey, file, checkpoint)
			}
			return c.verifyBroker(cmd.Context(), logKey)
		},
	}
	cmd.Flags().StringVar(&logKey, "log-key", "", "`file` with the public key of the log")
	cmd.Flags().StringVar(&file, "file", "", "verify this `file` that audit export wrote")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "the `file` of its checkpoint")
	return cmd
}

func (c *cli) verifyExport(logKey, file, checkpoint string) error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	trust, err := readLogKey(firstOf(logKey, s.LogKey))
	if err != nil {
		return err
	}
	note, err := readFile(checkpoint, maxCheckpoint)
	if err != nil {
		return usagef("%w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return usagef("%w", err)
	}
	defer func() { _ = f.Close() }()
	if trust, err = follow(trust, handoversIn(lines(f))); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return c.verify(lines(f), note, trust)
}

// handoversIn finds the hand-overs of the key that the entries record.
func handoversIn(entries iter.Seq2[json.RawMessage, error]) []string {
	var found []string
	for raw, err := range entries {
		var e api.AuditEntry
		if err != nil || json.Unmarshal(raw, &e) != nil {
			break // what cannot be read here cannot be verified either
		}
		if h := audit.HandoverOf(e); h != "" {
			found = append(found, h)
		}
	}
	return found
}

// lines yields an export entry by entry, so that its size does not matter.
func lines(r io.Reader) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		scan := bufio.NewScanner(r)
		scan.Buffer(nil, audit.MaxEntry+1)
		for scan.Scan() {
			if !yield(scan.Bytes(), nil) {
				return
			}
		}
		if err := scan.Err(); err != nil {
			yield(nil, err)
		}
	}
}

func (c *cli) verifyBroker(ctx context.Context, logKey string) error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	note, err := a.AuditCheckpoint(ctx)
	if err != nil {
		return doing(err, "fetch the checkpoint")
	}
	trust, err := c.logTrust(ctx, a, firstOf(logKey, s.LogKey))
	if err != nil {
		return err
	}
	signed, err := audit.ParseCheckpoint(note, trust)
	if err != nil {
		return invalidf("the checkpoint is not to be believed: %w", err).hint("is the key that of this broker?")
	}
	path := checkpointPath(c.env, s.Server)
	older, err := recall(path)
	if err != nil {
		return fmt.Errorf("remembered checkpoint: %w", err)
	}
	options := []audit.Option{audit.WithConsistency(func(from, to int64) ([][]byte, error) {
		return a.AuditConsistency(ctx, from, to)
	})}
	if older != nil {
		options = append(options, audit.WithRemembered(older))
	}
	// One entry more than was signed is not asked for: the log grows meanwhile.
	if err := c.verify(a.AuditEntries(ctx, 0, signed.Size), note, trust, options...); err != nil {
		return err
	}
	if err := replaceFile(path, note); err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	return nil
}

// logTrust returns whom to believe about the log: the key in a file, or else,
// loudly, the broker's own; and those keys that it was handed over from and to.
func (c *cli) logTrust(ctx context.Context, a *admin.Client, file string) (audit.Trust, error) {
	keys, err := a.AuditKeys(ctx)
	if err != nil {
		return audit.Trust{}, doing(err, "fetch the log's keys")
	}
	if file != "" {
		trust, err := readLogKey(file)
		if err != nil {
			return audit.Trust{}, err
		}
		return follow(trust, keys.Handovers)
	}
	c.warnf("WARNING: the key comes from the broker itself, which proves nothing about a broker that lies")
	c.warnf("WARNING: get audit.pub by another way and use --log-key FILE, or log-key in the context")
	trust, err := audit.NewTrust(keys.Current)
	if err != nil {
		return audit.Trust{}, invalidf("the broker's key is none: %w", err)
	}
	return follow(trust, keys.Handovers)
}

func follow(trust audit.Trust, handovers []string) (audit.Trust, error) {
	followed, err := trust.Follow(handovers)
	if err != nil {
		return trust, invalidf("the keys of the log are not to be believed: %w", err).hint("is the key that of this broker?")
	}
	return followed, nil
}

func readLogKey(file string) (audit.Trust, error) {
	if file == "" {
		return audit.Trust{}, usagef("the log's key is needed").hint("--log-key FILE; kbs serve writes audit.pub to its state directory")
	}
	b, err := readFile(file, maxCheckpoint)
	if err != nil {
		return audit.Trust{}, usagef("log key: %w", err)
	}
	trust, err := audit.NewTrust(strings.TrimSpace(string(b)))
	if err != nil {
		return audit.Trust{}, invalidf("log key %s: %w", file, err)
	}
	return trust, nil
}

// tally counts entries by decision.
type tally struct {
	Allow  int64 `json:"allow"`
	Deny   int64 `json:"deny"`
	Error  int64 `json:"error"`
	Change int64 `json:"change"`
	Other  int64 `json:"other,omitempty"`
}

func (t *tally) add(raw json.RawMessage) {
	var e api.AuditEntry
	_ = json.Unmarshal(raw, &e) // what cannot be read is Other, and Verify says so
	switch e.Decision {
	case "allow":
		t.Allow++
	case "deny":
		t.Deny++
	case "error":
		t.Error++
	case "change":
		t.Change++
	default:
		t.Other++
	}
}

func (t *tally) String() string {
	s := fmt.Sprintf("allow %d, deny %d, error %d, change %d", t.Allow, t.Deny, t.Error, t.Change)
	if t.Other > 0 {
		s += fmt.Sprintf(", other %d", t.Other)
	}
	return s
}

// verified is the result of audit verify.
type verified struct {
	Origin    string `json:"origin"`
	Entries   int64  `json:"entries"`
	Root      string `json:"root"`
	Decisions tally  `json:"decisions"`
}

func (c *cli) verify(entries iter.Seq2[json.RawMessage, error], note []byte, trust audit.Trust, options ...audit.Option) error {
	var found verified
	counted := func(yield func(json.RawMessage, error) bool) {
		for raw, err := range entries {
			if err == nil {
				found.Decisions.add(raw)
			}
			if !yield(raw, err) {
				return
			}
		}
	}
	report, err := audit.Verify(counted, note, trust, options...)
	if errors.Is(err, audit.ErrTampered) || errors.Is(err, audit.ErrCheckpoint) {
		return invalidf("the audit log does not verify: %w", err).
			hint("keep what you have of it: kbsctl audit export --checkpoint FILE")
	}
	if err != nil {
		return doing(err, "verify the audit log")
	}
	found.Origin, found.Entries = report.Checkpoint.Origin, report.Entries
	found.Root = report.Checkpoint.Root.String()
	if c.flags.output != "table" {
		return c.printData(found)
	}
	return c.printf("verified %d entries, root %s, decisions: %s\n", found.Entries, found.Root, &found.Decisions)
}

func (c *cli) auditTailCommand() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:   "tail [-n N]",
		Short: "Show the newest entries",
		Example: `  kbsctl audit tail -n 20
  kbsctl audit tail -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 1 {
				return usagef("-n must be at least 1")
			}
			return c.show(cmd.Context(), eventKind(), nil, listOptions{limit: n})
		},
	}
	cmd.Flags().IntVarP(&n, "lines", "n", 10, "show this `many` entries")
	return cmd
}

func (c *cli) auditExportCommand() *cobra.Command {
	var from int64
	var checkpoint string
	cmd := &cobra.Command{
		Use:   "export [--from INDEX | --checkpoint FILE]",
		Short: "Write the log to stdout, one entry a line",
		Long: `Write the log to stdout, one entry a line, each as the canonical JSON that its
leaf hash covers. With --checkpoint the signed checkpoint goes to that file, and
the export is exactly the log that it covers: audit verify --file can check it.`,
		Example: `  kbsctl audit export --checkpoint log.note > log.jsonl
  kbsctl audit export --from 182044 | jq 'select(.decision == "deny")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from < 0 {
				return usagef("--from must not be negative")
			}
			return c.export(cmd.Context(), from, checkpoint)
		},
	}
	cmd.Flags().Int64Var(&from, "from", 0, "start with the entry of this `index`")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "write the checkpoint of the log to this `file`")
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
	for raw, err := range a.AuditEntries(ctx, from, size) {
		if err != nil {
			return doing(err, "fetch the entries")
		}
		if _, err := c.stdio.Out.Write(append(bytes.Clone(raw), '\n')); err != nil {
			return err
		}
	}
	if checkpoint == "" {
		return nil
	}
	return replaceFile(checkpoint, note)
}
