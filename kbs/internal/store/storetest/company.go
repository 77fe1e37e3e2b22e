package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// company runs many updates at once, of which some fail in each possible way.
// Engines put such updates into one database transaction: what one does wrong
// must not show in another.
func company(t *testing.T, f fixture) {
	const workers, each = 16, 12
	mine := errors.New("mine")
	f.mustPut("shared", "", store.Absent)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("w/%02d/%02d", w, i)
				err := badOrGood(f.st, key, (w+i)%5, mine)
				if bad := (w+i)%5 != 0; bad == (err == nil) {
					t.Errorf("%s ended with %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for w := range workers {
		for i := range each {
			key := fmt.Sprintf("w/%02d/%02d", w, i)
			if (w+i)%5 == 0 {
				f.want(key, key, 1)
				n++
			} else {
				f.gone(key)
			}
		}
	}
	if r, err := f.get("shared"); err != nil || r.Version != store.Version(n+1) {
		t.Errorf("%d updates succeeded, and the record they share is %+v, %v", n, r, err)
	}
}

// badOrGood writes the key and a shared one, and then ends well or in one of
// four bad ways.
func badOrGood(st store.Store, key string, way int, mine error) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() { // a goroutine of its own can be ended in the midst
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		ended := true
		defer func() {
			if ended && err == nil {
				err = errors.New("the goroutine ended")
			}
		}()
		err = st.Update(ctx, func(tx store.Tx) error {
			if _, err := tx.Put(key, []byte(key), store.Absent); err != nil {
				return err
			}
			if _, err := tx.Put("shared", nil, store.Any); err != nil {
				return err
			}
			switch way {
			case 1:
				return mine
			case 2:
				panic("boom")
			case 3:
				cancel()
			case 4:
				runtime.Goexit()
			}
			return nil
		})
		ended = false
	}()
	<-done
	return err
}

// overTx keeps a transaction for longer than it lives.
func overTx(t *testing.T, f fixture) {
	var kept store.Tx
	if err := f.update(func(tx store.Tx) error { kept = tx; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Put("a", nil, store.Any); err == nil {
		t.Error("a write after the end of the transaction was taken")
	}
	f.view(func(tx store.Tx) error { kept = tx; return nil })
	if _, err := kept.Get("a"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("a read after the end of the transaction: %v", err)
	}
	f.gone("a")
}

// closedStore checks that a closed store answers, and does not hang or panic.
func closedStore(t *testing.T, f fixture) {
	if err := f.st.Close(); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(context.Context, func(store.Tx) error) error{"view": f.st.View, "update": f.st.Update} {
		err := run(context.Background(), func(tx store.Tx) error { _, err := tx.Get("a"); return err })
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s of a closed store: %v", name, err)
		}
	}
}
