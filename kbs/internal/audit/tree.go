package audit

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// hashes reads nodes of the tree. The node at level k that covers the leaves
// [m<<k, (m+1)<<k) was completed by the last of these, and lies with it.
func (l *Log) hashes(tx store.Tx) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		archived, _, err := l.archivedTx(tx)
		if err != nil {
			return nil, err
		}
		ends := peakEnds(archived)
		for i, index := range indexes {
			level, m := tlog.SplitStoredHashIndex(index)
			last := (m+1)<<level - 1
			if last < archived && !ends[last] { // dropped, or soon
				return nil, fmt.Errorf("%w: the entries below %d", ErrArchived, archived)
			}
			found, err := tx.Get(entryKey(last))
			if errors.Is(err, store.ErrNotFound) {
				return nil, fmt.Errorf("%w: entry %d is gone", ErrTampered, last)
			}
			if err != nil {
				return nil, err
			}
			r, err := parseRecord(found)
			if err != nil {
				return nil, err
			}
			if err := r.authentic(l.mac.Reveal()); err != nil {
				return nil, err
			}
			out[i] = r.node(level)
		}
		return out, nil
	})
}

// Inclusion proves that entry index is in the tree of the given size: an audit
// path of RFC 6962 section 2.1.1, as tlog.CheckRecord takes it.
func (l *Log) Inclusion(ctx context.Context, index, size int64) ([][]byte, error) {
	if index < 0 || index >= size {
		return nil, fmt.Errorf("%w: index %d in a tree of %d", ErrRange, index, size)
	}
	return l.prove(ctx, size, func(r tlog.HashReader) ([]tlog.Hash, error) { return tlog.ProveRecord(size, index, r) })
}

// Consistency proves that the tree of size older is a prefix of the tree of
// size newer: RFC 6962 section 2.1.2, as tlog.CheckTree takes it. Nothing needs
// to be proven about an empty tree, so older is at least 1.
func (l *Log) Consistency(ctx context.Context, older, newer int64) ([][]byte, error) {
	if older < 1 || older > newer {
		return nil, fmt.Errorf("%w: from %d to %d", ErrRange, older, newer)
	}
	return l.prove(ctx, newer, func(r tlog.HashReader) ([]tlog.Hash, error) { return tlog.ProveTree(newer, older, r) })
}

func (l *Log) prove(ctx context.Context, size int64, f func(tlog.HashReader) ([]tlog.Hash, error)) ([][]byte, error) {
	var proof []tlog.Hash
	err := l.st.View(ctx, func(tx store.Tx) error {
		_, err := tx.Get(entryKey(size - 1))
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: the log has fewer than %d entries", ErrRange, size)
		}
		if err != nil {
			return err
		}
		proof, err = f(l.hashes(tx))
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(proof))
	for i, h := range proof {
		out[i] = h[:]
	}
	return out, nil
}

// parseProof is the inverse of what the proofs above return.
func parseProof(proof [][]byte) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(proof))
	for i, b := range proof {
		if copy(out[i][:], b) != tlog.HashSize || len(b) != tlog.HashSize {
			return nil, fmt.Errorf("audit: element %d of the proof has %d bytes, want %d", i, len(b), tlog.HashSize)
		}
	}
	return out, nil
}
