package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// rooted is the tree of the first entries of all that there ever were.
func rooted(t testing.TB, all []json.RawMessage, n int64) *Tree {
	t.Helper()
	tree, err := NewTree(Archived{})
	for _, e := range all[:n] {
		err = errors.Join(err, tree.Add(e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func rootOf(t testing.TB, tree *Tree) tlog.Hash {
	t.Helper()
	root, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// archive archives and drops, as a broker does it.
func (w *world) archive(t testing.TB, size int64, root tlog.Hash) Archived {
	t.Helper()
	a, err := w.log.Archive(t.Context(), size, root, math.MaxInt64, api.AuditEntry{Subject: "admin:ann"})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n > 0; {
		if n, err = w.log.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// records counts the entries that the store has, and those of them with a text.
func (w *world) records(t testing.TB) (all, whole int) {
	t.Helper()
	w.raw(t, func(tx store.Tx) error {
		found, err := tx.List(prefixEntry, "", 10_000)
		for _, f := range found {
			r, perr := parseRecord(f)
			err = errors.Join(err, perr)
			if len(r.leaf) > 0 {
				whole++
			}
		}
		all = len(found)
		return err
	})
	return all, whole
}

// What is archived is gone from the store, and all that can be asked of the rest
// is answered as before: entries, proofs between any two sizes, checkpoints, and
// more of them.
func TestArchive(t *testing.T) {
	w := newWorld(t)
	var all []json.RawMessage // that there ever were
	more := func(n int) {
		t.Helper()
		w.fill(t, n)
		got, err := w.log.Entries(t.Context(), int64(len(all)), 1000)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
	}
	more(37)
	first := w.checkpoint(t)
	for _, size := range []int64{1, 5, 8, 21, 32, 37} {
		cp := w.checkpoint(t)
		root := rootOf(t, rooted(t, all, size))
		if a := w.archive(t, size, root); a.Size != size || a.Root() != root {
			t.Fatalf("%d archived: %d, %s; want %s", size, a.Size, a.Root(), root)
		}
		more(3) // with the entry about it, which lies before them
		kept, whole := w.records(t)
		if want := len(all) - int(size); whole != want || kept != want+len(peakIndexes(size)) {
			t.Errorf("%d archived: %d records, %d of them whole, of %d entries", size, kept, whole, len(all))
		}
		for _, l := range []*Log{w.log, w.another(t)} {
			checkRest(t, w, l, all, size)
		}
		if _, err := w.verify(w.checkpoint(t), int64(len(all)), WithArchived(w.archived(t)), WithRemembered(cp)); err != nil {
			t.Errorf("%d archived: %v", size, err)
		}
	}
	_, err := w.verify(w.checkpoint(t), int64(len(all)), WithArchived(w.archived(t)), WithRemembered(first))
	if err != nil { // of 37 entries, which is where the archive ends
		t.Errorf("the first checkpoint: %v", err)
	}
	w.archive(t, 40, rootOf(t, rooted(t, all, 40)))
	more(1)
	if _, err = w.verify(w.checkpoint(t), int64(len(all)), WithArchived(w.archived(t)), WithRemembered(first)); !errors.Is(err, ErrArchived) {
		t.Errorf("a checkpoint of what is archived: %v", err)
	}
	if _, err = Verify(each(all), w.checkpoint(t), w.trust, WithRemembered(first)); err != nil {
		t.Errorf("with the archives: %v", err)
	}
}

func each(all []json.RawMessage) func(func(json.RawMessage, error) bool) {
	return func(yield func(json.RawMessage, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *world) another(t testing.TB) *Log {
	t.Helper()
	l, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) archived(t testing.TB) Archived {
	t.Helper()
	a, err := w.log.Archived(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// checkRest asks for all that is not archived.
func checkRest(t *testing.T, w *world, l *Log, all []json.RawMessage, size int64) {
	t.Helper()
	ctx, end := t.Context(), int64(len(all))
	got, err := l.Entries(ctx, 0, 1000)
	if err != nil || !slices.EqualFunc(got, all[size:], func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
		t.Fatalf("%d archived: %d entries, %v", size, len(got), err)
	}
	if _, err := l.Authentic(ctx, size-1, 5); !errors.Is(err, ErrArchived) {
		t.Errorf("%d archived: the one before is passed on: %v", size, err)
	}
	if got, err := l.Authentic(ctx, size, 1000); err != nil || len(got) != len(all)-int(size) {
		t.Errorf("%d archived: %d are passed on, %v", size, len(got), err)
	}
	page, err := l.Query(ctx, Filter{Kind: "release"}, 0, 1000)
	if err != nil || page.First != size || page.Size != end || len(page.Entries) == 0 {
		t.Errorf("%d archived: a page from %d of %d with %d, %v", size, page.First, page.Size, len(page.Entries), err)
	}
	if page, err = l.Query(ctx, Filter{Since: clock.Add(-slack)}, 0, 1000); err != nil || len(page.Entries) != len(all)-int(size) {
		t.Errorf("%d archived: since then there are %d, %v", size, len(page.Entries), err)
	}
	for newer := size + 1; newer <= end; newer++ {
		whole := Checkpoint{Size: newer, Root: rootOf(t, rooted(t, all, newer))}
		for older := size; older <= newer; older++ {
			proof, err := l.Consistency(ctx, older, newer)
			if err == nil {
				err = rooted(t, all, older).Begins(whole, proof)
			}
			if err != nil {
				t.Fatalf("%d archived: from %d to %d: %v", size, older, newer, err)
			}
		}
		for _, index := range []int64{size, newer - 1} {
			proof, err := l.Inclusion(ctx, index, newer)
			if err != nil {
				t.Fatalf("%d archived: entry %d of %d: %v", size, index, newer, err)
			}
			p, _ := parseProof(proof)
			if err := tlog.CheckRecord(p, newer, whole.Root, index, tlog.RecordHash(all[index])); err != nil {
				t.Errorf("%d archived: entry %d of %d: %v", size, index, newer, err)
			}
		}
	}
	if size > 2 {
		if _, err := l.Inclusion(ctx, 0, end); !errors.Is(err, ErrArchived) {
			t.Errorf("%d archived: a proof of the first: %v", size, err)
		}
	}
}

// Nothing is given up that nobody has, that no checkpoint vouches for, or that a
// sink still wants.
func TestArchiveIsRefused(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 10)
	all, err := w.log.Entries(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	w.checkpoint(t)
	w.fill(t, 5)
	root := rootOf(t, rooted(t, all, 4))
	for name, c := range map[string]struct {
		size, confirmed int64
		root            tlog.Hash
	}{
		"another root":       {4, 100, rootOf(t, rooted(t, all, 5))},
		"not signed":         {11, 100, root},
		"not confirmed":      {4, 3, root},
		"nothing":            {0, 100, emptyRoot()},
		"more than there is": {1 << 40, 1 << 50, root},
	} {
		_, err := w.log.Archive(t.Context(), c.size, c.root, c.confirmed, api.AuditEntry{})
		if !errors.Is(err, ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a := w.archived(t); a.Size != 0 {
		t.Errorf("%d are archived", a.Size)
	}
	if n, err := w.log.Drop(t.Context()); n != 0 || err != nil {
		t.Errorf("%d dropped, %v", n, err)
	}
	w.archive(t, 4, root)
	if _, err := w.log.Archive(t.Context(), 4, root, 100, api.AuditEntry{}); !errors.Is(err, ErrRange) {
		t.Errorf("again: %v", err)
	}
	entries, err := w.log.Entries(t.Context(), 15, 10)
	var e api.AuditEntry
	if err != nil || len(entries) != 1 || json.Unmarshal(entries[0], &e) != nil || e.Kind != api.AuditArchive || e.Subject != "admin:ann" ||
		e.Details["size"] != "4" || e.Details["root"] != root.String() {
		t.Errorf("%q, %v", entries, err)
	}
}

// Who can write to the store cannot pass off as archived what he took away.
func TestArchiveIsNotForged(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 10)
	all, err := w.log.Entries(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	w.checkpoint(t)
	w.archive(t, 4, rootOf(t, rooted(t, all, 4)))
	ask := func() error {
		_, aerr := w.log.Archived(context.Background())
		_, eerr := w.log.Entries(context.Background(), 0, 100)
		return errors.Join(aerr, eerr)
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	var kept store.Record
	w.raw(t, func(tx store.Tx) (err error) {
		if kept, err = tx.Get(keyArchived); err != nil {
			return err
		}
		forged := slices.Clone(kept.Value)
		forged[len(forged)-1] = 8
		_, err = tx.Put(keyArchived, forged, kept.Version)
		return err
	})
	if err := ask(); !errors.Is(err, ErrTampered) {
		t.Errorf("a record with another number: %v", err)
	}
	w.raw(t, func(tx store.Tx) error { return tx.Delete(keyArchived, store.Any) })
	cp := w.checkpoint(t)
	if _, err := Verify(w.log.All(t.Context(), 11), cp, w.trust); !errors.Is(err, ErrTampered) {
		t.Errorf("without the record: %v", err)
	}
	if _, err := w.log.Inclusion(t.Context(), 0, 11); !errors.Is(err, ErrTampered) {
		t.Errorf("a proof without the record: %v", err)
	}
	w.raw(t, func(tx store.Tx) error { _, err := tx.Put(keyArchived, kept.Value, store.Any); return err })
	// A broker that hides entries which nobody archived names the right peaks.
	hidden := Archived{Size: 8}
	if err := w.st.View(t.Context(), func(tx store.Tx) (err error) { hidden, err = w.log.part(tx, 8); return err }); err != nil {
		t.Fatal(err)
	}
	rest, err := w.log.Entries(t.Context(), 8, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(each(rest), cp, w.trust, WithArchived(hidden)); !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), "no entry says") {
		t.Errorf("hidden entries: %v", err)
	}
	for name, a := range map[string]Archived{
		"other peaks": {4, []tlog.Hash{tlog.RecordHash([]byte("x"))}}, "no peaks": {4, nil}, "too few": {3, []tlog.Hash{{}}},
	} {
		_, err := Verify(w.log.All(t.Context(), 11), cp, w.trust, WithArchived(a))
		if err == nil {
			t.Errorf("%s: %v", name, fmt.Sprint(err))
		}
	}
}
