package sqlite

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func read(t *testing.T, st store.Store, key string) string {
	t.Helper()
	var value string
	err := st.View(context.Background(), func(tx store.Tx) error {
		r, err := tx.Get(key)
		value = string(r.Value)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// What SQLite counts must be what memory believes it counts: one for each
// commit, or nothing would ever be found here.
func TestRowsAreRemembered(t *testing.T) {
	st := openAt(t, t.TempDir())
	e, ok := st.(*engine)
	if !ok {
		t.Fatalf("got %T", st)
	}
	for i := range 10 {
		want := fmt.Sprint(i)
		if err := write(st, "k", want); err != nil {
			t.Fatal(err)
		}
		if got := read(t, st, "k"); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		era, ok := e.memory.now()
		if row, found := e.memory.find("k", era); !ok || !found || string(row.Value) != want {
			t.Fatalf("commit %d: true %v, found %v", i, ok, found)
		}
	}
	if err := e.writer.execText("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	if err := write(st, "other", "1"); err != nil {
		t.Fatal(err)
	}
	if era, ok := e.memory.now(); !ok || read(t, st, "k") != "9" {
		t.Fatalf("after a checkpoint: era %d, true %v", era, ok)
	}
}

// What a reader gets belongs to it.
func TestRememberedRowsAreNotShared(t *testing.T) {
	st := openAt(t, t.TempDir())
	if err := write(st, "k", "value"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := st.View(context.Background(), func(tx store.Tx) error {
			r, err := tx.Get("k")
			clear(r.Value)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, st, "k"); got != "value" {
		t.Fatalf("got %q", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	st := openAt(t, t.TempDir())
	e, ok := st.(*engine)
	if !ok {
		t.Fatalf("got %T", st)
	}
	value := strings.Repeat("x", maxKept/2)
	for i := range 4 * maxGeneration / len(value) {
		key := fmt.Sprintf("k/%d", i)
		if err := write(st, key, value); err != nil {
			t.Fatal(err)
		}
		if read(t, st, key) != value {
			t.Fatalf("%s is not what was written", key)
		}
	}
	size := 0
	for _, generation := range []map[string]int{sizes(e.memory, true), sizes(e.memory, false)} {
		for _, n := range generation {
			size += n
		}
	}
	if size == 0 || size > 2*maxGeneration+maxKept {
		t.Fatalf("%d bytes are kept, want at most %d", size, 2*maxGeneration)
	}
}

func sizes(m *memory, young bool) map[string]int {
	of := m.old
	if young {
		of = m.young
	}
	out := map[string]int{}
	for key, row := range of {
		out[key] = rowSize(key, row)
	}
	return out
}

// Two engines write the same two records, always both. No reader of either may
// see one without the other, or go back in time.
func TestReadersSeeOneState(t *testing.T) {
	dir := t.TempDir()
	stores := []store.Store{openAt(t, dir), openAt(t, dir)}
	const rounds = 60
	done := make(chan struct{})
	var writers, readers sync.WaitGroup
	for w, st := range stores {
		writers.Go(func() {
			for i := range rounds {
				err := st.Update(context.Background(), func(tx store.Tx) error {
					for _, key := range []string{"x", "y"} {
						if _, err := tx.Put(key, fmt.Append(nil, w, i), store.Any); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 6 {
		readers.Go(func() { watch(t, stores[i%2], done) })
	}
	writers.Wait()
	close(done)
	readers.Wait()
	for _, st := range stores {
		if v := bothAt(t, st); v != 2*rounds {
			t.Errorf("got version %d, want %d", v, 2*rounds)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

func watch(t *testing.T, st store.Store, done chan struct{}) {
	var last store.Version
	for {
		select {
		case <-done:
			return
		default:
		}
		v := bothAt(t, st)
		if v < last {
			t.Errorf("version %d after %d", v, last)
		}
		last = v
	}
}

// bothAt returns the version of both records.
func bothAt(t *testing.T, st store.Store) (v store.Version) {
	err := st.View(context.Background(), func(tx store.Tx) error {
		x, err := tx.Get("x")
		if err != nil {
			v = 0
			return nil //nolint:nilerr // nothing is written yet
		}
		y, err := tx.Get("y")
		if err != nil {
			return err
		}
		if v = x.Version; string(x.Value) != string(y.Value) || x.Version != y.Version {
			return fmt.Errorf("x is %q at %d, y is %q at %d", x.Value, x.Version, y.Value, y.Version)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return v
}
