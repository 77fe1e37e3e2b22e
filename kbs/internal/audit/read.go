package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Size returns the number of entries.
func (l *Log) Size(ctx context.Context) (int64, error) {
	before := l.seen.Load()
	var end tip
	err := l.st.View(ctx, func(tx store.Tx) (err error) {
		if end, err = readTip(tx, l.mac.Reveal()); err == nil {
			err = grown(end, before)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	l.saw(end.size)
	return end.size, nil
}

// Entries returns the canonical JSON of the entries from index from on, at
// most limit of them; none at or beyond the end of the log, and none that are
// archived. It shows what is
// stored: whoever relies on an entry checks a proof of it.
func (l *Log) Entries(ctx context.Context, from int64, limit int) ([]json.RawMessage, error) {
	var out []json.RawMessage
	err := l.read(ctx, from, limit, func(r record) error {
		out = append(out, r.leaf)
		return nil
	})
	return out, err
}

// Authentic is Entries for a reader that passes them on as the truth: it
// returns none that the broker did not write at this place. What comes before
// the first that is missing or not authentic is returned with the error. If the
// first is archived the error wraps [ErrArchived].
func (l *Log) Authentic(ctx context.Context, from int64, limit int) ([]json.RawMessage, error) {
	var out []json.RawMessage
	err := l.read(ctx, from, limit, func(r record) error {
		if want := from + int64(len(out)); r.index != want {
			return fmt.Errorf("%w: in the place of entry %d there is entry %d", ErrTampered, want, r.index)
		}
		if err := errors.Join(r.authentic(l.mac.Reveal()), r.whole()); err != nil {
			return err
		}
		out = append(out, r.leaf)
		return nil
	})
	if len(out) == 0 {
		if first, _, berr := l.bounds(ctx); berr == nil && from < first {
			return nil, fmt.Errorf("%w: the entries below %d", ErrArchived, first)
		}
	}
	return out, err
}

// read gives the records from index from on to f, in the order of the log.
func (l *Log) read(ctx context.Context, from int64, limit int, f func(record) error) error {
	if from < 0 {
		return fmt.Errorf("%w: index %d", ErrRange, from)
	}
	if limit < 1 {
		return store.ErrLimit
	}
	after := prefixEntry
	if from < math.MaxInt64-int64(limit) {
		after = entryKey(from + int64(limit))
	}
	var found []store.Record
	var first int64
	err := l.st.View(ctx, func(tx store.Tx) (err error) {
		if first, _, err = l.archivedTx(tx); err != nil {
			return err
		}
		found, err = tx.List(prefixEntry, after, limit)
		return err
	})
	if err != nil {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- {
		r, err := parseRecord(found[i])
		if err != nil {
			return err
		}
		if r.index < from || r.index < first {
			continue // the log ends before from+limit, so the listing went on below
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// page is how many entries All reads at once.
const page = 500

// All yields the canonical JSON of the entries below size, in order, but for those
// that are archived. It is what [Verify] wants for a checkpoint of that size.
func (l *Log) All(ctx context.Context, size int64) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for from := int64(0); from < size; from += page {
			entries, err := l.Entries(ctx, from, int(min(page, size-from)))
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}
