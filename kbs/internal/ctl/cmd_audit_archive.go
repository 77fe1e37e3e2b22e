package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
)

const auditArchiveLong = `Write the oldest entries of the log to a file, and let the broker give them up. The
file has one entry a line, as audit export writes them, and is verified against the
broker's signed checkpoint before the broker is asked. Of what is archived the broker
keeps the root of the tree, which the log goes on from: nothing can be changed in the
file, and nothing be put in its place, without audit verify seeing it.

An auditor gives all files to audit verify --archive, the oldest first. Without them
it verifies what the broker still has.

The newest entry always stays, and so does what a sink has not confirmed. Whatever
became of the request, the file is whole: keep it.`

// archiveOptions say what is archived, where to, and whose log it must be.
type archiveOptions struct{ before, out, logKey string }

func (c *cli) auditArchiveCommand() *cobra.Command {
	var o archiveOptions
	cmd := &cobra.Command{
		Use:   "archive --before TIME --out FILE",
		Short: "Move the oldest entries into a file, provably",
		Long:  auditArchiveLong,
		Example: `  kbsctl audit archive --before 90d --out audit-2026-q3.jsonl --log-key audit.pub
  kbsctl audit verify --log-key audit.pub --archive audit-2026-q2.jsonl --archive audit-2026-q3.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cut, err := parsePast("before", o.before, c.now())
			if err != nil {
				return err
			}
			return c.archive(cmd.Context(), o, cut)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.before, "before", "", "archive what is older: a `TIME` (2026-01-02T15:04:05Z) or an age (90m, 12h, 90d)")
	f.StringVar(&o.out, "out", "", "write the entries to this new `FILE`")
	f.StringVar(&o.logKey, "log-key", "", "`FILE` with the public key of the log")
	for _, name := range []string{"before", "out"} {
		_ = cmd.MarkFlagRequired(name) // they are there
	}
	return cmd
}

// archivedPart is the result of audit archive.
type archivedPart struct {
	File  string `json:"file"`
	First int64  `json:"first"`
	Size  int64  `json:"size"` // of the log up to there
	Root  string `json:"root"`
}

func (c *cli) archive(ctx context.Context, o archiveOptions, cut time.Time) error {
	if _, err := os.Lstat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s is there already, and archives are never replaced", o.out)
	}
	l, err := c.signedLog(ctx, o.logKey)
	if err != nil {
		return err
	}
	defer l.broker.Close()
	if err := c.continues(ctx, l); err != nil {
		return err
	}
	tree, first, err := c.writeArchive(ctx, l.broker, o.out, l.signed, cut)
	if err != nil {
		return err
	}
	if tree == nil {
		c.warnf("nothing is older than %s that sinks have confirmed", cut.UTC().Format(time.RFC3339))
		return nil
	}
	root, err := tree.Root()
	if err != nil {
		return err
	}
	if _, err := l.broker.ArchiveAudit(ctx, tree.Size(), root[:]); err != nil {
		c.warnf("%s is whole, and the broker still keeps its entries", o.out)
		return doing(err, "archive the audit log")
	}
	if err := replaceFile(l.path, l.note); err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	if c.flags.output != "table" {
		return c.printData(archivedPart{o.out, first, tree.Size(), root.String()})
	}
	return c.printf("archived entries %d to %d in %s, root %s\n", first, tree.Size()-1, o.out, root)
}

// signedLog is the audit log of the broker as it is now.
type signedLog struct {
	broker *admin.Client
	path   string // where its checkpoint is remembered
	signed audit.Checkpoint
	note   []byte // the checkpoint as it was signed
	trust  audit.Trust
}

// signedLog fetches the checkpoint, and checks it by the key in a file or else that
// of the settings. Whoever calls it closes the client.
func (c *cli) signedLog(ctx context.Context, logKey string) (l signedLog, err error) {
	s, err := c.settings()
	if err != nil {
		return l, err
	}
	if l.broker, err = c.client(); err != nil {
		return l, err
	}
	defer func() {
		if err != nil {
			l.broker.Close()
		}
	}()
	l.path = checkpointPath(c.env, s.Server)
	if l.note, err = l.broker.AuditCheckpoint(ctx); err != nil {
		return l, doing(err, "fetch the checkpoint")
	}
	if l.trust, err = c.logTrust(ctx, l.broker, firstOf(logKey, s.LogKey)); err != nil {
		return l, err
	}
	if l.signed, err = audit.ParseCheckpoint(l.note, l.trust); err != nil {
		return l, invalidf("the checkpoint is not to be believed: %w", err).hint("is the key that of this broker?")
	}
	return l, nil
}

// continues checks that the log continues what was remembered of it: once entries
// are archived, nobody can show that without them.
func (c *cli) continues(ctx context.Context, l signedLog) error {
	older, err := recall(l.path)
	if err != nil {
		return fmt.Errorf("remembered checkpoint: %w", err)
	}
	if older == nil {
		return nil
	}
	_, _, err = c.growth(ctx, l.broker, older, l.note, l.trust)
	return err
}

// writeArchive writes the entries before the cut to a new file, of which the
// signed log must be the continuation. It returns their tree and the first of them;
// no tree says that there are none.
func (c *cli) writeArchive(ctx context.Context, a *admin.Client, name string, signed audit.Checkpoint, cut time.Time) (*audit.Tree, int64, error) {
	had, limit, err := archivedAt(ctx, a)
	if err != nil {
		return nil, 0, err
	}
	tree, err := audit.NewTree(had)
	if err != nil {
		return nil, 0, invalidf("what the broker says of its archive is wrong: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".kbsctl-*")
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	defer func() { _ = tmp.Close() }()
	out := bufio.NewWriter(tmp)
	for raw, err := range a.AuditEntries(ctx, had.Size, max(0, min(limit, signed.Size-1))) { // the newest stays
		if err != nil {
			return nil, 0, doing(err, "fetch the entries")
		}
		e, err := entryOf(raw)
		if err != nil {
			return nil, 0, err
		}
		if !e.Time.Before(cut) {
			break
		}
		if err := tree.Add(raw); err != nil {
			return nil, 0, invalidf("the audit log does not verify: %w", err)
		}
		if _, err := fmt.Fprintf(out, "%s\n", raw); err != nil {
			return nil, 0, err
		}
	}
	if tree.Size() == had.Size {
		return nil, 0, nil
	}
	proof, err := a.AuditConsistency(ctx, tree.Size(), signed.Size)
	if err != nil {
		return nil, 0, doing(err, "fetch the proof")
	}
	if err := tree.Begins(signed, proof); err != nil {
		return nil, 0, invalidf("the audit log does not verify: %w", err)
	}
	if err := errors.Join(out.Flush(), tmp.Sync()); err != nil {
		return nil, 0, err
	}
	return tree, had.Size, errors.Join(os.Link(tmp.Name(), name), syncDir(filepath.Dir(name)))
}

// syncDir makes the names in a directory last.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// archivedAt asks up to where the log is archived, and up to where it may be.
func archivedAt(ctx context.Context, a *admin.Client) (had audit.Archived, limit int64, err error) {
	said, err := a.AuditArchived(ctx)
	if err != nil {
		return had, 0, doing(err, "ask what is archived")
	}
	had, limit = audit.Archived{Size: said.Size}, math.MaxInt64
	if said.Limit != nil {
		limit = max(had.Size, *said.Limit)
	}
	for _, p := range said.Peaks {
		if len(p) != tlog.HashSize {
			return had, 0, fault.Newf(fault.Unavailable, "the broker's word about its archive has a hash of %d bytes", len(p))
		}
		had.Peaks = append(had.Peaks, tlog.Hash(p))
	}
	if had.Size < 0 {
		return had, 0, fault.Newf(fault.Unavailable, "the broker says that %d entries are archived", had.Size)
	}
	return had, limit, nil
}

// concatenated yields the entries of files, one after the other, and then what
// follows after so many.
func concatenated(files []string, then func(after int64) iter.Seq2[json.RawMessage, error]) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		n := int64(0)
		for _, name := range files {
			more, err := fromFile(name, &n, yield)
			if err != nil {
				yield(nil, err)
				return
			}
			if !more {
				return
			}
		}
		if then != nil {
			then(n)(yield)
		}
	}
}

// fromFile yields the entries of one file, and counts them; more says whether
// anybody wants others.
func fromFile(name string, n *int64, yield func(json.RawMessage, error) bool) (more bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, usagef("%w", err)
	}
	defer func() { _ = f.Close() }()
	for raw, err := range lines(f) {
		if err == nil {
			*n++
		}
		if !yield(raw, err) || err != nil {
			return false, nil //nolint:nilerr // it was yielded
		}
	}
	return true, nil
}
