// Package storetest is the contract of package store in executable form. Every
// engine runs it, so that what holds for one holds for all.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Run checks the contract. Each call of open gives a new, empty store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, fixture)
	}{
		{"absent key", absentKey},
		{"versions", versions},
		{"versions continue after delete", versionsAfterDelete},
		{"stale write loses", staleWrite},
		{"refused write keeps the transaction", refusedWrite},
		{"keys and values at the limits", limits},
		{"list", listing},
		{"list pages", listPages},
		{"own writes are visible", ownWrites},
		{"rollback on error", rollbackOnError},
		{"rollback on panic", rollbackOnPanic},
		{"view is read-only", readOnlyView},
		{"view is a snapshot", snapshot},
		{"views run beside an update", viewBesideUpdate},
		{"concurrent counters", counters},
		{"caller owns the values", aliasing},
		{"context ends", cancelled},
		{"modified is set", modified},
		{"expiry", expiry},
		{"expiry, oldest first", expiryOrder},
		{"many deleted keys", manyDeleted},
		{"updates in bad company", company},
		{"a transaction that is over", overTx},
		{"a closed store", closedStore},
		{"random transactions", againstModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := open(t)
			t.Cleanup(func() {
				if err := st.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.test(t, fixture{t, st})
		})
	}
}

// fixture shortens the tests: each method is one transaction.
type fixture struct {
	t  *testing.T
	st store.Store
}

func (f fixture) view(fn func(store.Tx) error) {
	f.t.Helper()
	if err := f.st.View(context.Background(), fn); err != nil {
		f.t.Fatalf("view: %v", err)
	}
}

func (f fixture) update(fn func(store.Tx) error) error {
	return f.st.Update(context.Background(), fn)
}

func (f fixture) put(key, value string, want store.Version) (store.Version, error) {
	var v store.Version
	err := f.update(func(tx store.Tx) (err error) {
		v, err = tx.Put(key, []byte(value), want)
		return err
	})
	return v, err
}

func (f fixture) mustPut(key, value string, want store.Version) store.Version {
	f.t.Helper()
	v, err := f.put(key, value, want)
	if err != nil {
		f.t.Fatalf("put %q at %d: %v", key, want, err)
	}
	return v
}

func (f fixture) get(key string) (store.Record, error) {
	var r store.Record
	err := f.st.View(context.Background(), func(tx store.Tx) (err error) {
		r, err = tx.Get(key)
		return err
	})
	return r, err
}

func (f fixture) want(key, value string, v store.Version) {
	f.t.Helper()
	r, err := f.get(key)
	if err != nil || string(r.Value) != value || r.Version != v || r.Key != key {
		f.t.Fatalf("get %q: value %q version %d key %q error %v; want value %q version %d", key, r.Value, r.Version, r.Key, err, value, v)
	}
}

func (f fixture) gone(key string) {
	f.t.Helper()
	if r, err := f.get(key); !errors.Is(err, store.ErrNotFound) {
		f.t.Fatalf("get %q: %v, %v; want ErrNotFound", key, r, err)
	}
}

func (f fixture) list(prefix, after string, limit int) []string {
	f.t.Helper()
	var keys []string
	f.view(func(tx store.Tx) error {
		rs, err := tx.List(prefix, after, limit)
		for _, r := range rs {
			keys = append(keys, r.Key)
			if string(r.Value) != "value of "+r.Key || r.Version != 1 {
				f.t.Errorf("record %q lists with value %q, version %d", r.Key, r.Value, r.Version)
			}
		}
		return err
	})
	return keys
}

func absentKey(t *testing.T, f fixture) {
	f.gone("a")
	for _, want := range []store.Version{store.Any, store.Absent, 1} {
		err := f.update(func(tx store.Tx) error { return tx.Delete("a", want) })
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("delete at %d: %v, want ErrNotFound", want, err)
		}
	}
	if keys := f.list("", "", 10); keys != nil {
		t.Errorf("an empty store lists %q", keys)
	}
}

func versions(t *testing.T, f fixture) {
	for i, want := range []store.Version{store.Absent, store.Any, 2, 3} {
		if v := f.mustPut("a", fmt.Sprint(i), want); v != store.Version(i+1) {
			t.Fatalf("write %d gave version %d", i, v)
		}
	}
	f.want("a", "3", 4)
	if v := f.mustPut("b", "", store.Any); v != 1 {
		t.Errorf("another key starts at version %d", v)
	}
	f.want("b", "", 1)
}

func versionsAfterDelete(t *testing.T, f fixture) {
	del := func(want store.Version) {
		t.Helper()
		if err := f.update(func(tx store.Tx) error { return tx.Delete("a", want) }); err != nil {
			t.Fatalf("delete at %d: %v", want, err)
		}
		f.gone("a")
	}
	f.mustPut("a", "1", store.Absent)
	f.mustPut("a", "2", 1)
	del(2)
	if v := f.mustPut("a", "3", store.Absent); v <= 2 {
		t.Fatalf("after a delete at version 2 the key starts again at %d", v)
	}
	del(store.Any)
	last := f.mustPut("a", "4", store.Any)
	if last <= 3 {
		t.Fatalf("after a second delete the key starts again at %d", last)
	}
	if _, err := f.put("a", "stale", 1); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("a version from before the delete still writes: %v", err)
	}
	f.want("a", "4", last)
}

func staleWrite(t *testing.T, f fixture) {
	f.mustPut("a", "1", store.Absent)
	f.mustPut("a", "2", 1)
	for _, want := range []store.Version{store.Absent, 1, 3, -2, 1 << 62} {
		if _, err := f.put("a", "lost", want); !errors.Is(err, store.ErrConflict) {
			t.Errorf("put at %d: %v, want ErrConflict", want, err)
		}
		err := f.update(func(tx store.Tx) error { return tx.Delete("a", want) })
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("delete at %d: %v, want ErrConflict", want, err)
		}
	}
	if _, err := f.put("b", "lost", 1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("put of an absent key at 1: %v, want ErrConflict", err)
	}
	f.want("a", "2", 2)
	f.gone("b")
}

func refusedWrite(t *testing.T, f fixture) {
	f.mustPut("a", "1", store.Absent)
	err := f.update(func(tx store.Tx) error {
		if _, err := tx.Put("a", nil, store.Absent); !errors.Is(err, store.ErrConflict) {
			t.Errorf("put: %v, want ErrConflict", err)
		}
		if err := tx.Delete("none", store.Any); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("delete: %v, want ErrNotFound", err)
		}
		if _, err := tx.Put("", nil, store.Any); !errors.Is(err, store.ErrKey) {
			t.Errorf("put: %v, want ErrKey", err)
		}
		_, err := tx.Put("b", []byte("2"), store.Absent)
		return err
	})
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	f.want("a", "1", 1)
	f.want("b", "2", 1)
}

func limits(t *testing.T, f fixture) {
	for name, key := range map[string]string{
		"empty": "", "too long": strings.Repeat("k", store.MaxKey+1), "NUL": "a\x00b", "not UTF-8": "a\xff", "half a rune": "a\xc3",
	} {
		if _, err := f.put(key, "v", store.Any); !errors.Is(err, store.ErrKey) {
			t.Errorf("put with a key that is %s: %v, want ErrKey", name, err)
		}
		if _, err := f.get(key); !errors.Is(err, store.ErrKey) {
			t.Errorf("get with a key that is %s: %v, want ErrKey", name, err)
		}
		if err := f.update(func(tx store.Tx) error { return tx.Delete(key, store.Any) }); !errors.Is(err, store.ErrKey) {
			t.Errorf("delete with a key that is %s: %v, want ErrKey", name, err)
		}
	}
	long := strings.Repeat("k", store.MaxKey)
	f.mustPut(long, "v", store.Absent)
	f.want(long, "v", 1)

	big := strings.Repeat("\x00\xff'", store.MaxValue/3) + "!" // every kind of byte that may trip an engine
	f.mustPut("big", big, store.Absent)
	f.want("big", big, 1)
	if _, err := f.put("big", big+"!", store.Any); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a value of %d bytes: %v, want ErrTooLarge", len(big)+1, err)
	}
	for _, limit := range []int{0, -1} {
		err := f.st.View(context.Background(), func(tx store.Tx) error {
			_, err := tx.List("", "", limit)
			return err
		})
		if !errors.Is(err, store.ErrLimit) {
			t.Errorf("list with limit %d: %v, want ErrLimit", limit, err)
		}
	}
}

// trickyKeys trip engines that match with LIKE, fold case, collate by locale
// or compute an upper bound carelessly.
var trickyKeys = []string{
	"a", "a/", "a/%", "a/1", "a/10", "a/2", "a/B", "a/_", "a/b", "a/b/c", "a/b0", "a/\\", "a/\u007f", "a/\u00e9", "a/\uffff", "a/\U0010ffff",
	"a/\U0010ffff\U0010ffff", "a0", "aa", "A/1", "\u00ff", "\U0010ffff", "\u0001", " ", "'", "\"", "a\nb",
}

func listing(t *testing.T, f fixture) {
	sorted := slices.Sorted(slices.Values(trickyKeys)) // Go compares strings by byte
	for _, k := range trickyKeys {
		f.mustPut(k, "value of "+k, store.Absent)
	}
	prefixes := append([]string{"", "a/b", "b", "a/\xf4", "\xf4\x8f", "\xff"}, trickyKeys...)
	for _, prefix := range prefixes {
		for _, after := range append([]string{"", "zzz", prefix}, trickyKeys...) {
			var want []string
			for _, k := range sorted {
				if strings.HasPrefix(k, prefix) && k > after {
					want = append(want, k)
				}
			}
			if got := f.list(prefix, after, 1000); !slices.Equal(got, want) {
				t.Fatalf("list(%q, after %q):\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
}

func listPages(t *testing.T, f fixture) {
	var want []string
	err := f.update(func(tx store.Tx) error {
		for i := range 57 {
			k := fmt.Sprintf("p/%03d", i)
			want = append(want, k)
			if _, err := tx.Put(k, []byte("value of "+k), store.Absent); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page := f.list("p/", after, 10)
		if len(page) > 10 || len(got) > len(want) {
			t.Fatalf("a page of %d after %d keys", len(page), len(got))
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("pages gave %q", got)
	}
}

func ownWrites(t *testing.T, f fixture) {
	err := f.update(func(tx store.Tx) error {
		if _, err := tx.Put("a", []byte("1"), store.Absent); err != nil {
			return err
		}
		if _, err := tx.Put("a", []byte("2"), 1); err != nil {
			return err
		}
		r, err := tx.Get("a")
		if err != nil || string(r.Value) != "2" || r.Version != 2 {
			t.Errorf("get in the same transaction: %v, %v", r, err)
		}
		if rs, err := tx.List("a", "", 5); err != nil || len(rs) != 1 || !bytes.Equal(rs[0].Value, r.Value) {
			t.Errorf("list in the same transaction: %v, %v", rs, err)
		}
		if err := tx.Delete("a", 2); err != nil {
			return err
		}
		if _, err := tx.Get("a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get after delete in the same transaction: %v", err)
		}
		v, err := tx.Put("a", []byte("3"), store.Absent)
		if v <= 2 {
			t.Errorf("put after delete in the same transaction gave version %d", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := f.get("a"); err != nil || string(r.Value) != "3" {
		t.Fatalf("after commit: %v, %v", r, err)
	}
}
