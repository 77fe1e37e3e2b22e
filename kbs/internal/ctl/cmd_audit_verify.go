package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
)

const auditVerifyLong = `Fetch the whole log, recompute its Merkle tree and compare that with the
checkpoint that the broker signed. The checkpoint is remembered under
$XDG_STATE_HOME/kbs/checkpoints, and the next time the log must continue the
history that was seen this time. Any mismatch is exit code 3.

The key must reach you by another way than through the broker (kbs serve writes
audit.pub to its state directory): a broker that lies would also lie about the
key. Without --log-key and without a log-key in the context, the broker's own
answer is used, with a warning.

A key that was rotated hands over to the next one; verify follows from the key
that you have, whichever it is.

Where entries were archived (kbsctl audit archive), the rest is verified, from the
root that the broker keeps of them. With --archive, once for each file and the oldest
first, they are verified too: whoever remembers more than the broker still has needs
that.

With --quick only the growth since the last time is proven: nothing is fetched
but a proof that the log continues what was remembered.

With --file and --checkpoint an export is verified, archives before it as --file
too, and with --proof what audit prove wrote. No broker is asked then.`

// verifyOptions say what is verified, and by which key.
type verifyOptions struct {
	logKey, checkpoint, proof string
	files, archives           []string
	quick                     bool
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [--log-key FILE]",
		Short: "Prove that no entry was changed or dropped",
		Long:  auditVerifyLong,
		Example: `  kbsctl audit verify --log-key audit.pub
  kbsctl audit verify --log-key audit.pub --quick
  kbsctl audit verify --log-key audit.pub --file log.jsonl --checkpoint log.note
  kbsctl audit verify --key audit.pub --proof entry-182044.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.auditVerify(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.logKey, "log-key", "", "`FILE` with the public key of the log; --key is the same")
	f.StringArrayVar(&o.files, "file", nil, "verify this `FILE` that audit export wrote; those of audit archive go before it")
	f.StringArrayVar(&o.archives, "archive", nil, "begin with the entries of this `FILE` that audit archive wrote; may be repeated")
	f.StringVar(&o.checkpoint, "checkpoint", "", "the `FILE` of its checkpoint")
	f.StringVar(&o.proof, "proof", "", "verify this `FILE` that audit prove wrote")
	f.BoolVar(&o.quick, "quick", false, "prove only that the log continues what was verified the last time")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "key" {
			name = "log-key"
		}
		return pflag.NormalizedName(name)
	})
	cmd.MarkFlagsMutuallyExclusive("file", "proof", "quick", "archive")
	cmd.MarkFlagsRequiredTogether("file", "checkpoint")
	return cmd
}

func (c *cli) auditVerify(ctx context.Context, o verifyOptions) error {
	switch {
	case o.proof != "":
		return c.verifyProof(o)
	case len(o.files) > 0:
		return c.verifyExport(o.logKey, o.files, o.checkpoint)
	}
	return c.verifyBroker(ctx, o)
}

// proven is the result of audit verify --proof.
type proven struct {
	Origin string          `json:"origin"`
	Size   int64           `json:"size"`
	Root   string          `json:"root"`
	Entry  json.RawMessage `json:"entry"`
}

func (c *cli) verifyProof(o verifyOptions) error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	trust, err := readLogKey(firstOf(o.logKey, s.LogKey))
	if err != nil {
		return err
	}
	raw, err := given.File(o.proof, audit.MaxBundle)
	if err != nil {
		return usagef("%w", err)
	}
	bundle, err := audit.ParseBundle(raw)
	if err != nil {
		return invalidf("%s: %w", o.proof, err)
	}
	signed, err := bundle.Verify(trust)
	if err != nil {
		return invalidf("the proof does not hold: %w", err)
	}
	if c.flags.output != "table" {
		return c.printData(proven{signed.Origin, signed.Size, signed.Root.String(), bundle.Entry})
	}
	var e api.AuditEntry
	if err := json.Unmarshal(bundle.Entry, &e); err != nil {
		return invalidf("the entry is none: %w", err)
	}
	if err := c.printf("proven: entry %d is in the log %s of %d entries, root %s\n\n", e.Index, clean(signed.Origin), signed.Size, signed.Root); err != nil {
		return err
	}
	sheet := &sheet{w: c.stdio.Out}
	c.eventObject(e, bundle.Entry).describe(sheet)
	return sheet.err
}

func (c *cli) verifyExport(logKey string, files []string, checkpoint string) error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	trust, err := readLogKey(firstOf(logKey, s.LogKey))
	if err != nil {
		return err
	}
	note, err := given.File(checkpoint, maxCheckpoint)
	if err != nil {
		return usagef("%w", err)
	}
	entries := concatenated(files, nil)
	if trust, err = follow(trust, handoversIn(entries)); err != nil {
		return err
	}
	return c.verify(entries, note, trust)
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

func (c *cli) verifyBroker(ctx context.Context, o verifyOptions) error {
	l, err := c.signedLog(ctx, o.logKey)
	if err != nil {
		return err
	}
	defer l.broker.Close()
	older, err := recall(l.path)
	if err != nil {
		return fmt.Errorf("remembered checkpoint: %w", err)
	}
	if o.quick && older == nil {
		return usagef("--quick: nothing of this log was verified before").hint("kbsctl audit verify")
	}
	if o.quick {
		return c.verifyGrowth(ctx, l, older)
	}
	options := []audit.Option{audit.WithConsistency(func(from, to int64) ([][]byte, error) {
		return l.broker.AuditConsistency(ctx, from, to)
	})}
	if older != nil {
		options = append(options, audit.WithRemembered(older))
	}
	from := func(first int64) iter.Seq2[json.RawMessage, error] {
		// One entry more than was signed is not asked for: the log grows meanwhile.
		return l.broker.AuditEntries(ctx, first, l.signed.Size)
	}
	entries := concatenated(o.archives, from)
	if len(o.archives) == 0 {
		had, _, err := archivedAt(ctx, l.broker)
		if err != nil {
			return err
		}
		entries = from(had.Size)
		options = append(options, audit.WithArchived(had))
	}
	if err := c.verify(entries, l.note, l.trust, options...); err != nil {
		return err
	}
	if err := replaceFile(l.path, l.note); err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	return nil
}

// grown is the result of audit verify --quick.
type grown struct {
	Origin string `json:"origin"`
	From   int64  `json:"from"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
}

// verifyGrowth checks that the log only grew since it was verified, without
// its entries.
func (c *cli) verifyGrowth(ctx context.Context, l signedLog, older []byte) error {
	was, is, err := c.growth(ctx, l.broker, older, l.note, l.trust)
	if err != nil {
		return err
	}
	if err := replaceFile(l.path, l.note); err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	if c.flags.output != "table" {
		return c.printData(grown{is.Origin, was.Size, is.Size, is.Root.String()})
	}
	return c.printf("the log continues: from %d to %d entries, root %s\n", was.Size, is.Size, is.Root)
}

// growth proves that one checkpoint's log continues that of an older one.
func (c *cli) growth(ctx context.Context, a *admin.Client, older, note []byte, trust audit.Trust) (was, is audit.Checkpoint, err error) {
	if was, err = audit.ParseCheckpoint(older, trust); err != nil {
		return was, is, invalidf("the remembered checkpoint is not of this log: %w", err)
	}
	if is, err = audit.ParseCheckpoint(note, trust); err != nil {
		return was, is, invalidf("the checkpoint is not to be believed: %w", err)
	}
	var proof [][]byte
	if was.Size > 0 && was.Size <= is.Size {
		proof, err = a.AuditConsistency(ctx, was.Size, is.Size)
		if fault.CodeOf(err) == fault.NotFound {
			return was, is, archivedMeanwhile(doing(err, "fetch the proof"))
		}
		if err != nil {
			return was, is, doing(err, "fetch the proof")
		}
	}
	if err := audit.VerifyConsistency(older, note, proof, trust); err != nil {
		return was, is, invalidf("the audit log does not verify: %w", err)
	}
	return was, is, nil
}

// archivedMeanwhile says how to verify what the broker alone cannot show any more.
func archivedMeanwhile(err error) error {
	return (&failure{err: err, exit: fault.ExitNotFound}).
		hint("what you remember of this log is archived by now: kbsctl audit verify --archive FILE, with each file and the oldest first")
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
	b, err := given.File(file, maxCheckpoint)
	if err != nil {
		return audit.Trust{}, usagef("log key: %w", err)
	}
	trust, err := audit.NewTrust(strings.TrimSpace(string(b)))
	if err != nil {
		return audit.Trust{}, invalidf("log key %s: %w", file, err).hint("the key of an audit log is in audit.pub of the broker's state directory")
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
	First     int64  `json:"first,omitempty"` // that was verified: those before it are archived
	Entries   int64  `json:"entries"`         // of the log
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
	if errors.Is(err, audit.ErrArchived) {
		return archivedMeanwhile(doing(err, "verify the audit log"))
	}
	if err != nil {
		return doing(err, "verify the audit log")
	}
	found.First = report.First
	found.Origin, found.Entries = report.Checkpoint.Origin, report.Entries
	found.Root = report.Checkpoint.Root.String()
	if c.flags.output != "table" {
		return c.printData(found)
	}
	archived := ""
	if found.First > 0 {
		archived = fmt.Sprintf(" after %d that are archived", found.First)
	}
	return c.printf("verified %d entries%s, root %s, decisions: %s\n", found.Entries-found.First, archived, found.Root, &found.Decisions)
}
