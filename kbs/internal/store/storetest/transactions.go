package storetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func rollbackOnError(t *testing.T, f fixture) {
	f.mustPut("a", "1", store.Absent)
	mine := errors.New("mine")
	err := f.update(func(tx store.Tx) error {
		_, e1 := tx.Put("a", []byte("lost"), store.Any)
		_, e2 := tx.Put("b", []byte("lost"), store.Any)
		return errors.Join(e1, e2, mine)
	})
	if !errors.Is(err, mine) {
		t.Fatalf("update: %v, want the function's own error", err)
	}
	f.want("a", "1", 1)
	f.gone("b")
	if v := f.mustPut("a", "2", 1); v != 2 {
		t.Fatalf("the undone write used up version 2: got %d", v)
	}
	err = f.update(func(tx store.Tx) error { return errors.Join(tx.Delete("a", 2), mine) })
	if !errors.Is(err, mine) {
		t.Fatalf("update: %v", err)
	}
	f.want("a", "2", 2)
}

func rollbackOnPanic(t *testing.T, f fixture) {
	for name, run := range map[string]func(context.Context, func(store.Tx) error) error{"view": f.st.View, "update": f.st.Update} {
		func() {
			defer func() {
				if recover() != "boom" {
					t.Errorf("%s swallowed a panic", name)
				}
			}()
			_ = run(context.Background(), func(tx store.Tx) error {
				_, _ = tx.Put("a", []byte("lost"), store.Any)
				panic("boom")
			})
		}()
	}
	f.gone("a")
	f.mustPut("a", "1", store.Absent) // the store still takes writes
}

func readOnlyView(t *testing.T, f fixture) {
	f.mustPut("a", "1", store.Absent)
	f.view(func(tx store.Tx) error {
		if _, err := tx.Put("a", nil, store.Any); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("put in a view: %v, want ErrReadOnly", err)
		}
		if err := tx.Delete("a", store.Any); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("delete in a view: %v, want ErrReadOnly", err)
		}
		return nil
	})
	f.want("a", "1", 1)
}

func snapshot(t *testing.T, f fixture) {
	f.mustPut("a", "1", store.Absent)
	f.view(func(tx store.Tx) error {
		if _, err := tx.Get("a"); err != nil {
			return err
		}
		f.mustPut("a", "2", store.Any)
		f.mustPut("b", "2", store.Any)
		if r, err := tx.Get("a"); err != nil || string(r.Value) != "1" {
			t.Errorf("a write beside the view shows in it: %v, %v", r, err)
		}
		if _, err := tx.Get("b"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a key made beside the view shows in it: %v", err)
		}
		if rs, err := tx.List("", "", 10); err != nil || len(rs) != 1 {
			t.Errorf("the view lists %v, %v", rs, err)
		}
		return nil
	})
	f.want("a", "2", 2)
}

func viewBesideUpdate(t *testing.T, f fixture) {
	f.mustPut("a", "1", store.Absent)
	err := f.update(func(tx store.Tx) error {
		if _, err := tx.Put("a", []byte("2"), 1); err != nil {
			return err
		}
		f.want("a", "1", 1) // from a view: it neither waits nor sees what is not committed
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.want("a", "2", 2)
}

// counters adds to one record from many goroutines, by compare-and-swap over
// two transactions and inside one. No addition may get lost.
func counters(t *testing.T, f fixture) {
	const workers, each = 8, 20
	f.mustPut("cas", "0", store.Absent)
	f.mustPut("tx", "0", store.Absent)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := 0; n < each; {
				r, err := f.get("cas")
				if err != nil {
					t.Error(err)
					return
				}
				switch _, err := f.put("cas", plusOne(t, r.Value), r.Version); {
				case err == nil:
					n++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			for range each {
				err := f.update(func(tx store.Tx) error {
					r, err := tx.Get("tx")
					if err != nil {
						return err
					}
					_, err = tx.Put("tx", []byte(plusOne(t, r.Value)), store.Any)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	f.want("cas", strconv.Itoa(workers*each), workers*each+1)
	f.want("tx", strconv.Itoa(workers*each), workers*each+1)
}

func plusOne(t *testing.T, b []byte) string {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		t.Error(err)
	}
	return strconv.Itoa(n + 1)
}

func aliasing(t *testing.T, f fixture) {
	in := []byte("value")
	err := f.update(func(tx store.Tx) error {
		_, err := tx.Put("a", in, store.Absent)
		copy(in, "XXXXX")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.want("a", "value", 1)
	var kept store.Record
	f.view(func(tx store.Tx) error {
		r, err := tx.Get("a")
		if err != nil {
			return err
		}
		kept = r
		copy(r.Value, "YYYYY")
		again, err := tx.Get("a")
		if err != nil || string(again.Value) != "value" {
			t.Errorf("the caller's change to a value shows in the store: %q, %v", again.Value, err)
		}
		rs, err := tx.List("a", "", 1)
		if err == nil && len(rs) == 1 {
			copy(rs[0].Value, "ZZZZZ")
		}
		return err
	})
	f.mustPut("a", "other", store.Any)
	if string(kept.Value) != "YYYYY" {
		t.Errorf("a value changed after its transaction: %q", kept.Value)
	}
	f.want("a", "other", 2)
}

func cancelled(t *testing.T, f fixture) {
	ctx, cancel := context.WithCancel(context.Background())
	err := f.st.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Put("a", []byte("lost"), store.Any); err != nil {
			return err
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended within the update: %v", err)
	}
	f.gone("a")
	for name, run := range map[string]func(context.Context, func(store.Tx) error) error{"view": f.st.View, "update": f.st.Update} {
		err := run(ctx, func(store.Tx) error {
			t.Errorf("%s began under an ended context", name)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s under an ended context: %v", name, err)
		}
	}
	// A writer that waits for another gives up when its context ends.
	err = f.update(func(tx store.Tx) error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := f.st.Update(ctx, func(store.Tx) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second writer beside the first: %v", err)
		}
		_, err := tx.Put("a", []byte("1"), store.Absent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.want("a", "1", 1)
}

func modified(t *testing.T, f fixture) {
	before := time.Now().Add(-time.Minute)
	f.mustPut("a", "1", store.Absent)
	r, err := f.get("a")
	if err != nil || r.Modified.Before(before) || r.Modified.After(time.Now().Add(time.Minute)) || r.Modified.Location() != time.UTC {
		t.Fatalf("modified is %v, %v", r.Modified, err)
	}
}

// RunDurable checks that what one store acknowledged, the next one has. Calls
// of openAt with the same directory open the same store.
func RunDurable(t *testing.T, openAt func(t *testing.T, dir string) store.Store) {
	dir := t.TempDir()
	f := fixture{t, openAt(t, dir)}
	f.mustPut("kept", "1", store.Absent)
	f.mustPut("kept", "2", 1)
	f.mustPut("gone", "1", store.Absent)
	if err := f.update(func(tx store.Tx) error { return tx.Delete("gone", 1) }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.st.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		f.st = openAt(t, dir)
		f.want("kept", "2", 2)
		f.gone("gone")
	}
	if v := f.mustPut("gone", "2", store.Absent); v <= 1 {
		t.Errorf("a deleted key forgot its versions when the store was closed: %d", v)
	}
	if err := f.st.Close(); err != nil {
		t.Fatal(err)
	}
}
