package resource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func walker(set *kek.Set) *kek.Walker {
	return kek.NewWalker(set, func(tenant string) kek.Wrapper { return kek.Bind(set, tenant) },
		func(store.Tx, []string) error { return nil }, slog.New(slog.DiscardHandler), Records{})
}

func unsaid(store.Tx, string, string) error { return nil }

// The broker may die before and after every step of a rotation: every value of
// every version stays readable, as what it was, and the walk ends.
func TestRotationKilledAtEveryStep(t *testing.T) {
	for kill := 0; ; kill++ {
		w := newWorld(t)
		tenants := []world{w, {Builtin: w.tenant(t, "b"), base: w.base, master: w.master}}
		for _, x := range tenants {
			for i := range 5 {
				for v := range 3 {
					x.put(t, fmt.Sprintf("r/t/%d", i), fmt.Sprint("value ", i, v))
				}
			}
		}
		was := w.keys(t, w.base).ID()
		readable := func() {
			t.Helper()
			for _, name := range []string{"a", "b"} {
				b := w.tenant(t, name) // as a new process has it
				for i := range 5 {
					for v := range 3 {
						item, err := b.Get(t.Context(), path(t, fmt.Sprintf("r/t/%d", i)), int64(v+1))
						if err != nil || string(item.Value.Reveal()) != fmt.Sprint("value ", i, v) || item.Info.Version != 3 {
							t.Fatalf("killed at step %d: tenant %s, %d, version %d: %+v, %v", kill, name, i, v+1, item.Info, err)
						}
					}
				}
			}
		}
		set := w.keys(t, &mortal{Store: w.base, left: 3 + kill}) // to open it takes 3 steps at most
		_, err := set.Rotate(t.Context(), "", unsaid)
		if err == nil {
			err = walker(set).Walk(t.Context())
		}
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("killed at step %d: %v", kill, err)
		}
		readable()
		again := w.keys(t, w.base)
		if werr := walker(again).Walk(t.Context()); werr != nil {
			t.Fatal(werr)
		}
		readable()
		if err == nil {
			state, serr := again.State(t.Context())
			if serr != nil || again.ID() == was || len(state.Keys) != 2 || state.Keys[0].Retired.IsZero() {
				t.Fatalf("after %d steps: %+v, %v", kill, state, serr)
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

// A writer that prepared its change before a rotation makes it all the same,
// under the new key.
func TestChangesAcrossARotation(t *testing.T) {
	w := newWorld(t)
	w.put(t, "a/b/c", "one")
	set := w.keys(t, w.base)
	rotations := 0
	for _, c := range []Change{
		putOf(t, "a/b/c", "two"), putOf(t, "a/b/new", "two"),
		{Op: OpRollback, Path: path(t, "a/b/c"), Want: -1, Version: 1},
		{Op: OpMeta, Path: path(t, "a/b/c"), Want: -1, Meta: &api.ResourceMeta{Owner: "x"}},
	} {
		first := true
		err := w.Run(t.Context(), c, func(commit Commit) error {
			if first {
				if _, err := set.Rotate(t.Context(), "", unsaid); err != nil {
					t.Fatal(err)
				}
				rotations++
				first = false
			}
			return w.Store.Update(t.Context(), func(tx store.Tx) error {
				_, err := commit(tx)
				return err
			})
		})
		if err != nil {
			t.Fatalf("change %d: %v", c.Op, err)
		}
	}
	if err := walker(set).Walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(t, "a/b/c", "one")
	w.want(t, "a/b/new", "two")
	state, err := set.State(t.Context())
	if err != nil || len(state.Keys) != rotations+1 {
		t.Fatalf("%+v, %v", state, err)
	}
}

// While the walk goes on, writers and readers do as they always do.
func TestRotationUnderLoad(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		w.put(t, fmt.Sprintf("r/t/%03d", i), "before")
	}
	set := w.keys(t, w.base)
	if _, err := set.Rotate(t.Context(), "", unsaid); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- walker(set).Walk(t.Context()) }()
	for i := range 100 {
		w.want(t, fmt.Sprintf("r/t/%03d", 99-i), "before")
		if i%2 == 0 {
			w.put(t, fmt.Sprintf("r/t/%03d", 99-i), "after")
		}
		if i%5 == 0 {
			meta := &api.ResourceMeta{Owner: "x"}
			if _, err := w.Apply(t.Context(), Change{Op: OpMeta, Path: path(t, fmt.Sprintf("r/t/%03d", i)), Want: -1, Meta: meta}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	state, err := set.State(t.Context())
	if err != nil || state.Keys[0].Retired.IsZero() {
		t.Fatalf("%+v, %v", state, err)
	}
	for i := range 100 {
		want := "before"
		if i%2 == 1 {
			want = "after"
		}
		w.want(t, fmt.Sprintf("r/t/%03d", i), want)
	}
}
