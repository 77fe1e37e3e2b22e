package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// chainWriters is how many goroutines [WriteChain] writes with.
const chainWriters = 8

// WriteChain writes until ctx ends, from several goroutines, and calls
// acknowledged with a name for each update that the store acknowledged. Each
// update writes two records, and a third that links it to the one before, so
// that [CheckChain] sees a lost update and half an update. Errors are handed to
// failed, which says whether to go on.
func WriteChain(ctx context.Context, st store.Store, run string, acknowledged func(string), failed func(error) bool) {
	var wg sync.WaitGroup
	for w := range chainWriters {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("%s-%d-%06d", run, w, i)
				if err := Link(ctx, st, name); err == nil {
					acknowledged(name)
				} else if ctx.Err() == nil && !failed(err) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// Link is one update of [WriteChain].
func Link(ctx context.Context, st store.Store, name string) error {
	return st.Update(ctx, func(tx store.Tx) error {
		before := "nothing"
		r, err := tx.Get("chain/head")
		switch {
		case err == nil:
			before = string(r.Value)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if _, err := tx.Put("chain/a/"+name, []byte(before), store.Absent); err != nil {
			return err
		}
		if _, err := tx.Put("chain/b/"+name, []byte(strings.Repeat(name, 200)), store.Absent); err != nil {
			return err
		}
		_, err = tx.Put("chain/head", []byte(name), r.Version)
		return err
	})
}

// CheckChain checks what is left after any number of [WriteChain] that were
// cut short: every acknowledged update is there, every one that is there is
// whole, and they form one chain from the head to the first.
func CheckChain(t testing.TB, st store.Store, acknowledged map[string]bool) {
	t.Helper()
	linked := map[string]bool{}
	err := st.View(context.Background(), func(tx store.Tx) error {
		clear(linked)
		r, err := tx.Get("chain/head")
		if err != nil {
			return fmt.Errorf("head: %w", err)
		}
		for name := string(r.Value); name != "nothing"; name = string(r.Value) {
			if linked[name] {
				return fmt.Errorf("%s is in the chain twice", name)
			}
			linked[name] = true
			if r, err = tx.Get("chain/b/" + name); err != nil || string(r.Value) != strings.Repeat(name, 200) {
				return fmt.Errorf("the second record of %s is %q: %w", name, r.Value, err)
			}
			if r, err = tx.Get("chain/a/" + name); err != nil {
				return fmt.Errorf("the first record of %s: %w", name, err)
			}
		}
		for _, prefix := range []string{"chain/a/", "chain/b/"} {
			rs, err := tx.List(prefix, "", 1<<20)
			if err != nil {
				return err
			}
			for _, r := range rs {
				if !linked[strings.TrimPrefix(r.Key, prefix)] {
					return fmt.Errorf("%s is there, but not in the chain", r.Key)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range acknowledged {
		if !linked[name] {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	if len(linked) == 0 {
		t.Error("nothing was written")
	}
	t.Logf("%d updates in the chain, %d of them acknowledged", len(linked), len(acknowledged))
}
