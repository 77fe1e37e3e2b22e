package kek_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// world is a store with the files of its keys.
type world struct {
	t    *testing.T
	st   store.Store
	file kek.Files
}

func newWorld(t *testing.T) world {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return world{t, st, kek.Files(filepath.Join(t.TempDir(), "master.key"))}
}

func (w world) open(st store.Store) *kek.Set {
	w.t.Helper()
	set, err := kek.OpenSet(w.t.Context(), st, time.Now, w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	return set
}

// scope is the part of the store that belongs to a tenant, "" for the broker's
// own.
func scope(st store.Store, tenant string) store.Store {
	if tenant == "" {
		return st
	}
	return store.Scope(st, "t/"+tenant+"/")
}

func of(set *kek.Set, tenant string) kek.Wrapper {
	if tenant == "" {
		return set
	}
	return kek.Bind(set, "tenant "+tenant)
}

func ring(st store.Store, set *kek.Set, tenant string) *keyring.Ring {
	return keyring.Open(scope(st, tenant), of(set, tenant))
}

func walker(set *kek.Set, retired func(store.Tx, []string) error) *kek.Walker {
	return kek.NewWalker(set, func(tenant string) kek.Wrapper { return of(set, tenant) }, retired,
		slog.New(slog.DiscardHandler), keyring.Records{})
}

func unheard(store.Tx, []string) error        { return nil }
func unsaid(store.Tx, string, string) error   { return nil }
func name(i int) string                       { return fmt.Sprintf("k/%03d", i) }
func keyOf(tenant string, i int) secret.Bytes { return secret.Copy([]byte(tenant + name(i))) }
func tenantsAndBroker() []string              { return []string{"", "a", "a-b", "b"} }
func fill(t *testing.T, w world, n int)       { each(t, w, n, put) }
func readable(t *testing.T, w world, n int)   { t.Helper(); each(t, w, n, get) }
func put(r *keyring.Ring, n string, k secret.Bytes) error {
	return r.Put(context.Background(), n, k)
}

func get(r *keyring.Ring, n string, want secret.Bytes) error {
	got, err := r.Get(context.Background(), n)
	if err == nil && !got.Equal(want) {
		err = errors.New("another key")
	}
	return err
}

func each(t *testing.T, w world, n int, do func(*keyring.Ring, string, secret.Bytes) error) {
	t.Helper()
	set := w.open(w.st)
	for _, tenant := range tenantsAndBroker() {
		for i := range n {
			if err := do(ring(w.st, set, tenant), name(i), keyOf(tenant, i)); err != nil {
				t.Fatalf("%q %s: %v", tenant, name(i), err)
			}
		}
	}
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	const n = 70 // more than two batches
	fill(t, w, n)
	set := w.open(w.st)
	was := set.ID()
	var said string
	state, err := set.Rotate(t.Context(), "", func(_ store.Tx, from, to string) error {
		said = from + " " + to
		return nil
	})
	if err != nil || state.Current == was || said != was+" "+state.Current || set.ID() != state.Current {
		t.Fatalf("%+v, %v, said %q", state, err, said)
	}
	readable(t, w, n)
	var retired []string
	walk := walker(set, func(_ store.Tx, ids []string) error { retired = ids; return nil })
	if err := walk.Walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := set.Progress(t.Context())
	if err != nil || p.Moved != 4*n || p.Pass != 2 || p.Looked != 4*n || p.Finished.IsZero() || p.FailedCount != 0 {
		t.Fatalf("progress %+v, %v", p, err)
	}
	if len(retired) != 1 || retired[0] != was {
		t.Fatalf("retired %v", retired)
	}
	// The old key is of no use any more.
	if err := os.Remove(string(w.file)); err != nil {
		t.Fatal(err)
	}
	readable(t, w, n)
	if err := walk.Walk(t.Context()); err != nil { // there is nothing to do
		t.Fatal(err)
	}
}

// Without a key that something may be under, the broker does not start.
func TestMissingKeys(t *testing.T) {
	w := newWorld(t)
	fill(t, w, 1)
	raw, err := os.ReadFile(string(w.file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(string(w.file)); err != nil {
		t.Fatal(err)
	}
	if _, err := kek.OpenSet(t.Context(), w.st, time.Now, w.file); !errors.Is(err, kek.ErrUnknown) {
		t.Fatalf("without its key: %v", err)
	}
	if _, err := kek.LoadOrCreate(string(w.file)); err != nil {
		t.Fatal(err)
	}
	if _, err := kek.OpenSet(t.Context(), w.st, time.Now, w.file); !errors.Is(err, kek.ErrUnknown) {
		t.Fatalf("with another key: %v", err)
	}
	if err := os.WriteFile(string(w.file), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	set := w.open(w.st)
	if _, err := set.Rotate(t.Context(), "", unsaid); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(string(w.file)); err != nil {
		t.Fatal(err)
	}
	if _, err := kek.OpenSet(t.Context(), w.st, time.Now, w.file); !errors.Is(err, kek.ErrUnknown) {
		t.Fatalf("without the former key, before the walk: %v", err)
	}
}

// A replica that has not heard of the rotation puts nothing under the former
// key: its write is done again under the new one.
func TestLateWriter(t *testing.T) {
	w := newWorld(t)
	fill(t, w, 1)
	late, quick := w.open(w.st), w.open(w.st)
	if _, err := quick.Rotate(t.Context(), "", unsaid); err != nil {
		t.Fatal(err)
	}
	if late.ID() == quick.ID() {
		t.Fatal("the test does not test")
	}
	if err := ring(w.st, late, "").Put(t.Context(), name(0), keyOf("", 0)); err != nil {
		t.Fatal(err)
	}
	if late.ID() != quick.ID() {
		t.Fatal("the late replica did not learn")
	}
	p, err := quick.Progress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := walker(quick, unheard).Walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err = quick.Progress(t.Context()); err != nil || p.Moved != 3 { // those of the tenants
		t.Fatalf("progress %+v, %v", p, err)
	}
	readable(t, w, 1)
}

// A record that does not open keeps the former key in service, and is named.
func TestDamagedRecord(t *testing.T) {
	w := newWorld(t)
	fill(t, w, 3)
	err := w.st.Update(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("t/a/keyring/" + name(1))
		if err != nil {
			return err
		}
		_, err = tx.Put("t/b/keyring/"+name(1), r.Value, store.Any) // another tenant's
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	set := w.open(w.st)
	if _, err := set.Rotate(t.Context(), "", unsaid); err != nil {
		t.Fatal(err)
	}
	walk := walker(set, func(store.Tx, []string) error { t.Error("a key was retired"); return nil })
	if err := walk.Walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := set.Progress(t.Context())
	if err != nil || p.FailedCount != 1 || len(p.Failed) != 1 || p.Failed[0] != "t/b/keyring/"+name(1) || p.Finished.IsZero() {
		t.Fatalf("progress %+v, %v", p, err)
	}
	// Once it is gone, rotating to the same key finishes the work.
	if err := ring(w.st, set, "b").Delete(t.Context(), name(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Rotate(t.Context(), set.ID(), unsaid); err != nil {
		t.Fatal(err)
	}
	if err := walker(set, unheard).Walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, err := set.State(t.Context())
	if err != nil || len(state.Keys) != 2 || state.Keys[0].Retired.IsZero() {
		t.Fatalf("%+v, %v", state, err)
	}
}

func TestRotateTo(t *testing.T) {
	w := newWorld(t)
	set := w.open(w.st)
	if _, err := set.Rotate(t.Context(), "local:0011223344556677", unsaid); !errors.Is(err, kek.ErrUnknown) {
		t.Fatalf("to a key that nobody has: %v", err)
	}
	mine := errors.New("mine")
	before := set.ID()
	if _, err := set.Rotate(t.Context(), "", func(store.Tx, string, string) error { return mine }); !errors.Is(err, mine) {
		t.Fatal(err)
	}
	if set.ID() != before || w.open(w.st).ID() != before {
		t.Fatal("a rotation that could not be recorded happened all the same")
	}
	made, err := w.file.Make(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if state, err := set.Rotate(t.Context(), made.ID(), unsaid); err != nil || state.Current != made.ID() {
		t.Fatalf("%+v, %v", state, err)
	}
}

// The broker may die before and after every step: no key is ever unreadable,
// and the next start finishes.
func TestKilledAtEveryStep(t *testing.T) {
	const n = 12
	for kill := 0; ; kill++ {
		w := newWorld(t)
		fill(t, w, n)
		dying := &mortal{Store: w.st, left: kill}
		set, err := kek.OpenSet(t.Context(), dying, time.Now, w.file)
		if err == nil {
			if _, err = set.Rotate(t.Context(), "", unsaid); err == nil {
				err = walker(set, unheard).Walk(t.Context())
			}
		}
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("killed at step %d: %v", kill, err)
		}
		readable(t, w, n)
		after := w.open(w.st)
		if err := walker(after, unheard).Walk(t.Context()); err != nil {
			t.Fatal(err)
		}
		readable(t, w, n)
		state, serr := after.State(t.Context())
		if serr != nil {
			t.Fatal(serr)
		}
		for _, k := range state.Keys {
			if k.Retired.IsZero() != (k.ID == state.Current) {
				t.Fatalf("killed at step %d: %+v", kill, state)
			}
		}
		if err == nil {
			if kill < 10 || len(state.Keys) != 2 {
				t.Fatalf("after %d steps: %+v", kill, state)
			}
			return
		}
	}
}

var errKilled = errors.New("killed")

// mortal lets some transactions through and then none.
type mortal struct {
	store.Store
	left int
}

func (m *mortal) View(ctx context.Context, f func(store.Tx) error) error {
	if m.left--; m.left < 0 {
		return errKilled
	}
	return m.Store.View(ctx, f)
}

func (m *mortal) Update(ctx context.Context, f func(store.Tx) error) error {
	if m.left--; m.left < 0 {
		return errKilled
	}
	return m.Store.Update(ctx, f)
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte("\x07local:1wrapped"))
	f.Add([]byte{1, 'x'})
	f.Add([]byte{0})
	f.Add(bytes.Repeat([]byte{255}, 300))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, wrapped, err := kek.ParseEnvelope(b)
		if err != nil {
			return
		}
		if again := append(append([]byte{byte(len(id))}, id...), wrapped...); !bytes.Equal(again, b) {
			t.Fatalf("accepted %x but it means %x", b, again)
		}
	})
}
