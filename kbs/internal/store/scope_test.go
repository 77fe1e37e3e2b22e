package store_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

func open(t *testing.T) store.Store {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// Two scopes hold the same key and never meet.
func TestScopesAreApart(t *testing.T) {
	st := open(t)
	a, b := store.Scope(st, "t/a/"), store.Scope(st, "t/b/")
	put := func(s store.Store, key, value string) {
		t.Helper()
		if err := s.Update(t.Context(), func(tx store.Tx) error { _, err := tx.Put(key, []byte(value), store.Any); return err }); err != nil {
			t.Fatal(err)
		}
	}
	put(a, "x/1", "of a")
	put(b, "x/1", "of b")
	put(b, "x/2", "only b")
	err := a.View(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("x/1")
		if err != nil || string(r.Value) != "of a" || r.Key != "x/1" {
			t.Errorf("got %+v, %v", r, err)
		}
		if _, err := tx.Get("x/2"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another scope's key: %v", err)
		}
		for _, key := range []string{"../b/x/2", "/../b/x/2", ""} {
			if _, err := tx.Get(key); err == nil {
				t.Errorf("%q was found", key)
			}
		}
		all, err := tx.List("", "", 10)
		if err != nil || len(all) != 1 || all[0].Key != "x/1" {
			t.Errorf("listed %+v, %v", all, err)
		}
		rest, err := tx.List("", "x/1", 10)
		if err != nil || len(rest) != 0 {
			t.Errorf("listed %+v after the last, %v", rest, err)
		}
		below, err := store.Unscoped(tx).List("t/", "", 10)
		if err != nil || len(below) != 3 {
			t.Errorf("below the scope: %+v, %v", below, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Update(t.Context(), func(tx store.Tx) error { return tx.Delete("x/2", store.Any) }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted in another scope: %v", err)
	}
}

func TestBadScopesPanic(t *testing.T) {
	for _, prefix := range []string{"", "a", "a/\x00/"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", prefix)
				}
			}()
			store.Scope(nil, prefix)
		}()
	}
}

// A sweep of one scope deletes nothing in another; one of the store all.
func TestScopesExpireApart(t *testing.T) {
	st := open(t)
	a, b := store.Scope(st, "t/a/"), store.Scope(st, "t/b/")
	until := time.Unix(1000, 0)
	for _, s := range []store.Store{a, b} {
		err := s.Update(t.Context(), func(tx store.Tx) error { _, err := tx.PutUntil("x", nil, store.Absent, until); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{1, 0} {
		if n, err := store.Sweep(t.Context(), a, until.Add(time.Second)); err != nil || n != want {
			t.Errorf("swept %d, want %d: %v", n, want, err)
		}
	}
	if n, err := store.Sweep(t.Context(), st, until.Add(time.Second)); err != nil || n != 1 {
		t.Errorf("the whole store: swept %d, want 1: %v", n, err)
	}
}
