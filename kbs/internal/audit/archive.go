package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// ErrArchived says that entries are not in the log any more: whoever archived them
// has them in files. Of their tree the log keeps the peaks, from which it goes on.
var ErrArchived = errors.New("audit: archived")

// keyArchived is the record of how far the log is archived:
//
//	32 bytes   HMAC-SHA-256 over the number that follows
//	8 bytes    entries that are archived, from the first on, big endian
//
// It is made with the key of the entries' records: entries that are missing without
// it were taken away.
const keyArchived = "audit/archived"

// dropBatch is how many entries one transaction takes out of the store.
const dropBatch = 500

// Archived is the beginning of a log whose entries lie elsewhere.
type Archived struct {
	Size  int64       // entries, from the first on
	Peaks []tlog.Hash // of their tree, the largest first: RFC 6962 section 2.1
}

// Root is the hash of RFC 6962 section 2.1 over these entries.
func (a Archived) Root() tlog.Hash { return tip{a.Size, a.Peaks}.root() }

// peakIndexes are the places of the peaks of a tree of that size among the hashes
// of the tree, the largest peak first.
func peakIndexes(size int64) []int64 {
	var out []int64
	at := int64(0)
	for level := 62; level >= 0; level-- {
		if size&(1<<level) != 0 {
			out = append(out, tlog.StoredHashIndex(level, at>>level))
			at += 1 << level
		}
	}
	return out
}

// peakEnds are the last entries of the peaks of a tree of that size.
func peakEnds(size int64) map[int64]bool {
	out := map[int64]bool{}
	for rest := size; rest > 0; rest &= rest - 1 { // without its lowest bit
		out[rest-1] = true
	}
	return out
}

// details are those of the entry about the archiving.
func (a Archived) details() map[string]string {
	return map[string]string{"size": strconv.FormatInt(a.Size, 10), "root": a.Root().String()}
}

// saidBy reports whether an entry is that one.
func (a Archived) saidBy(leaf []byte) bool {
	var e api.AuditEntry
	want := a.details()
	return json.Unmarshal(leaf, &e) == nil && e.Kind == api.AuditArchive && e.Details["size"] == want["size"] && e.Details["root"] == want["root"]
}

func (l *Log) archiveCode(size []byte) []byte {
	h := hmac.New(sha256.New, l.mac.Reveal())
	_, _ = h.Write([]byte("vouchsafe audit archive v1\x00"))
	_, _ = h.Write(size)
	return h.Sum(nil)
}

// archivedTx returns how many entries are archived, and the record that says so.
func (l *Log) archivedTx(tx store.Tx) (int64, store.Version, error) {
	r, err := tx.Get(keyArchived)
	if errors.Is(err, store.ErrNotFound) {
		return 0, store.Absent, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if len(r.Value) != sha256.Size+8 || !hmac.Equal(r.Value[:sha256.Size], l.archiveCode(r.Value[sha256.Size:])) {
		return 0, 0, fmt.Errorf("%w: what is archived was not written by this broker", ErrTampered)
	}
	size := int64(binary.BigEndian.Uint64(r.Value[sha256.Size:])) //nolint:gosec // written below, from an int64
	return size, r.Version, nil
}

// Archived tells which entries are archived.
func (l *Log) Archived(ctx context.Context) (a Archived, err error) {
	err = l.st.View(ctx, func(tx store.Tx) error {
		size, _, err := l.archivedTx(tx)
		if err != nil || size == 0 {
			a = Archived{}
			return err
		}
		a, err = l.part(tx, size)
		return err
	})
	return a, err
}

// part is the log as it was with size entries, of which there is one at least.
func (l *Log) part(tx store.Tx, size int64) (Archived, error) {
	peaks, err := l.hashes(tx).ReadHashes(peakIndexes(size))
	return Archived{size, peaks}, err
}

// Archive notes that the entries below size lie elsewhere, and that the log need
// not keep them; [Log.Drop] takes them away. root is the caller's proof that he
// has them: that of their tree. All of them must be under the last checkpoint, and
// confirmed by sinks up to the entry before confirmed. e says who wanted it, and
// becomes an entry.
func (l *Log) Archive(ctx context.Context, size int64, root tlog.Hash, confirmed int64, e api.AuditEntry) (Archived, error) {
	var out Archived
	err := l.withKeys(ctx, func(k *keys) error {
		return l.st.Update(ctx, func(tx store.Tx) (err error) {
			out, err = l.archiveTx(tx, k, size, root, confirmed, e)
			return err
		})
	})
	return out, err
}

func (l *Log) archiveTx(tx store.Tx, k *keys, size int64, root tlog.Hash, confirmed int64, e api.AuditEntry) (Archived, error) {
	end, err := readTip(tx, l.mac.Reveal())
	if err != nil {
		return Archived{}, err
	}
	signed, _, err := l.lastCheckpoint(tx, k, end)
	if err != nil {
		return Archived{}, err
	}
	before, was, err := l.archivedTx(tx)
	switch {
	case err != nil:
		return Archived{}, err
	case size <= before:
		return Archived{}, fmt.Errorf("%w: %d entries are archived already", ErrRange, before)
	case size > signed.Size || size >= end.size:
		return Archived{}, fmt.Errorf("%w: of %d entries %d are under a checkpoint, and the newest stays", ErrRange, end.size, signed.Size)
	case size > confirmed:
		return Archived{}, fmt.Errorf("%w: a sink has confirmed the entries below %d alone", ErrRange, confirmed)
	}
	part, err := l.part(tx, size)
	if err != nil {
		return Archived{}, err
	}
	if part.Root() != root {
		return Archived{}, fmt.Errorf("%w: the first %d entries have another root: they are not what you have", ErrRange, size)
	}
	value := binary.BigEndian.AppendUint64(nil, uint64(size))
	if _, err := tx.Put(keyArchived, append(l.archiveCode(value), value...), was); err != nil {
		return Archived{}, fmt.Errorf("audit: archive: %w", err)
	}
	e.Kind, e.Decision, e.Object = api.AuditArchive, "change", "audit/entries"
	e.Details = part.details()
	if before > 0 {
		e.Details["before"] = strconv.FormatInt(before, 10)
	}
	if _, err := l.AppendTx(tx, e); err != nil {
		return Archived{}, err
	}
	return part, nil
}

// Drop takes some archived entries out of the store, and reports how many; 0 says
// that none are left there. Those that end a peak stay, without their text.
func (l *Log) Drop(ctx context.Context) (int, error) {
	dropped := 0
	err := l.st.Update(ctx, func(tx store.Tx) error {
		dropped = 0
		size, _, err := l.archivedTx(tx)
		if err != nil || size == 0 {
			return err
		}
		found, err := tx.List(prefixEntry, entryKey(size), dropBatch)
		if err != nil {
			return err
		}
		stay := peakEnds(size)
		for _, f := range found {
			r, err := parseRecord(f)
			if err != nil {
				return err
			}
			switch {
			case !stay[r.index]:
				err = tx.Delete(f.Key, f.Version)
			case len(r.leaf) > 0:
				_, err = tx.Put(f.Key, f.Value[:len(f.Value)-len(r.leaf)], f.Version)
			default:
				continue
			}
			if err != nil {
				return fmt.Errorf("audit: drop entry %d: %w", r.index, err)
			}
			dropped++
		}
		return nil
	})
	return dropped, err
}
