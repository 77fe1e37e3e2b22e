package snapshot_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/snapshot"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

// Two replicas over one store: a change counts at once where it was made, and
// within a second elsewhere; what has not changed is not read again.
func TestChangesAreSeen(t *testing.T) {
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	var ahead, reads atomic.Int64
	now := func() time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(ahead.Load())) }
	read := func(tx store.Tx) (string, error) {
		reads.Add(1)
		r, err := tx.Get("x")
		if errors.Is(err, store.ErrNotFound) {
			return "nothing", nil
		}
		return string(r.Value), err
	}
	here, there := snapshot.New(st, "gen", now, read), snapshot.New(st, "gen", now, read)
	want := func(s *snapshot.Set[string], text string) {
		t.Helper()
		if got, err := s.Get(t.Context()); err != nil || got != text {
			t.Errorf("%q, %v; want %q", got, err, text)
		}
	}
	put := func(text string) error {
		return here.Update(t.Context(), func(tx store.Tx) error {
			_, err := tx.Put("x", []byte(text), store.Any)
			return err
		})
	}
	want(here, "nothing")
	want(there, "nothing")
	if err := put("one"); err != nil {
		t.Fatal(err)
	}
	want(here, "one")
	want(there, "nothing")
	ahead.Add(int64(snapshot.Fresh))
	want(there, "one")
	before := reads.Load()
	for range 5 {
		ahead.Add(int64(snapshot.Fresh))
		want(there, "one")
	}
	if n := reads.Load() - before; n != 0 {
		t.Errorf("read %d times without a change", n)
	}
	if err := here.Update(t.Context(), func(store.Tx) error { return errors.New("no") }); err == nil {
		t.Error("no error")
	}
	want(here, "one")
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	ahead.Add(int64(snapshot.Fresh))
	if _, err := there.Get(t.Context()); err == nil {
		t.Error("an old snapshot outlived the store")
	}
}
