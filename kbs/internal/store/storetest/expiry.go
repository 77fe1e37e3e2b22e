package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func (f fixture) putUntil(key string, until time.Time) {
	f.t.Helper()
	err := f.update(func(tx store.Tx) error {
		_, err := tx.PutUntil(key, []byte("value of "+key), store.Any, until)
		return err
	})
	if err != nil {
		f.t.Fatalf("put %q: %v", key, err)
	}
}

func (f fixture) sweep(prefix string, now time.Time, limit int) int {
	f.t.Helper()
	var n int
	err := f.update(func(tx store.Tx) (err error) {
		n, err = tx.DeleteExpired(prefix, now, limit)
		return err
	})
	if err != nil {
		f.t.Fatalf("sweep %q: %v", prefix, err)
	}
	return n
}

func expiry(t *testing.T, f fixture) {
	f.putUntil("s/old", noon)
	f.putUntil("s/new", noon.Add(time.Hour))
	f.putUntil("s/kept", noon)
	f.mustPut("s/kept", "value of s/kept", 1) // a plain write: it stays for ever
	f.mustPut("s/ever", "value of s/ever", store.Absent)
	f.putUntil("t/old", noon)
	if r, err := f.get("s/old"); err != nil || !r.Expires.Equal(noon) || r.Expires.Location() != time.UTC {
		t.Errorf("a record until noon: %+v, %v", r, err)
	}
	if r, err := f.get("s/kept"); err != nil || !r.Expires.IsZero() {
		t.Errorf("a record for ever: %+v, %v", r, err)
	}
	if n := f.sweep("s/", noon, 10); n != 0 {
		t.Errorf("%d records went before their time was over", n)
	}
	if n := f.sweep("s/", noon.Add(time.Second), 10); n != 1 {
		t.Errorf("%d records went, want 1", n)
	}
	f.gone("s/old")
	if n, err := store.Sweep(t.Context(), f.st, noon.Add(2*time.Hour)); n != 2 || err != nil {
		t.Errorf("%d records went, want 2: %v", n, err)
	}
	var keys []string
	f.view(func(tx store.Tx) error {
		rs, err := tx.List("", "", 10)
		for _, r := range rs {
			keys = append(keys, r.Key)
		}
		return err
	})
	if !slices.Equal(keys, []string{"s/ever", "s/kept"}) {
		t.Errorf("left are %q", keys)
	}
	if v := f.mustPut("s/old", "again", store.Absent); v <= 1 {
		t.Errorf("an expired key starts again at version %d", v)
	}
}

// Expired records go oldest first, also those of the same transaction.
func expiryOrder(t *testing.T, f fixture) {
	for i := range 5 {
		f.putUntil(fmt.Sprintf("s/%d", i), noon.Add(-time.Duration(i)*time.Minute))
	}
	err := f.update(func(tx store.Tx) error {
		if _, err := tx.PutUntil("s/5", nil, store.Absent, noon.Add(-time.Hour)); err != nil {
			return err
		}
		if err := tx.Delete("s/4", 1); err != nil {
			return err
		}
		if _, err := tx.PutUntil("s/3", nil, 1, noon.Add(time.Hour)); err != nil { // renewed
			return err
		}
		n, err := tx.DeleteExpired("", noon.Add(time.Second), 2)
		if n != 2 {
			t.Errorf("%d went, want 2", n)
		}
		if _, err := tx.Get("s/5"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the oldest stayed: %v", err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, there := range map[string]bool{"s/0": true, "s/1": true, "s/2": false, "s/3": true, "s/4": false, "s/5": false} {
		if _, err := f.get(key); errors.Is(err, store.ErrNotFound) == there {
			t.Errorf("%s: %v", key, err)
		}
	}
	f.view(func(tx store.Tx) error {
		if _, err := tx.DeleteExpired("", noon, 1); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("sweep in a view: %v", err)
		}
		return nil
	})
	if err := f.update(func(tx store.Tx) error { _, err := tx.DeleteExpired("", noon, 0); return err }); !errors.Is(err, store.ErrLimit) {
		t.Errorf("sweep of nothing: %v", err)
	}
}

// manyDeleted checks that versions survive although nothing is kept of a
// single deleted key, and that another folder's versions stay low.
func manyDeleted(t *testing.T, f fixture) {
	for range 3 {
		f.mustPut("a/often", "", store.Any)
	}
	del := func(key string) {
		t.Helper()
		if err := f.update(func(tx store.Tx) error { return tx.Delete(key, store.Any) }); err != nil {
			t.Fatal(err)
		}
	}
	del("a/often")
	f.mustPut("a/once", "", store.Absent)
	del("a/once")
	if v := f.mustPut("a/often", "", store.Absent); v <= 3 {
		t.Errorf("a deleted key forgot its versions: %d", v)
	}
}
