package approval_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/approval"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(c.ahead.Load()))
}
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func open(t *testing.T) (*approval.Book, store.Store, *clock) {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{}
	return approval.Open(st, keyring.Open(st, w), time.Hour, c.now), st, c
}

func quiet(store.Tx, approval.Request) error { return nil }

var ann, bob, nobody = admin.Identity{Issuer: "x", Subject: "ann"}, admin.Identity{Issuer: "x", Subject: "bob"}, admin.Identity{Issuer: "x"}

func ask(t *testing.T, b *approval.Book) approval.Request {
	t.Helper()
	r, err := b.Ask(t.Context(), approval.Request{Asker: ann, Approval: api.Approval{Action: "a.b", Method: "PUT", Path: "/x"}}, []byte("body"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mark(t *testing.T, b *approval.Book, st store.Store, r approval.Request) error {
	t.Helper()
	return st.Update(t.Context(), func(tx store.Tx) error { return b.Mark(tx, r.ID, r.Run) })
}

// A broker that dies after an approval leaves a change that another one can
// carry out, once: whoever is late cannot mark it, and so cannot make it.
func TestABrokerThatDies(t *testing.T) {
	b, st, c := open(t)
	r := ask(t, b)
	first, err := b.Approve(t.Context(), r.ID, bob, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Approve(t.Context(), r.ID, bob, "", quiet); !errors.Is(err, approval.ErrState) {
		t.Errorf("at once: %v", err)
	}
	c.advance(time.Minute)
	second, err := b.Approve(t.Context(), r.ID, bob, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := mark(t, b, st, first); !errors.Is(err, approval.ErrState) {
		t.Errorf("the one that was thought dead: %v", err)
	}
	for range 2 { // one change may have several entries
		if err := mark(t, b, st, second); err != nil {
			t.Error(err)
		}
	}
	c.advance(time.Hour)
	if _, err := b.Approve(t.Context(), r.ID, bob, "", quiet); !errors.Is(err, approval.ErrState) {
		t.Errorf("when it is done: %v", err)
	}
	if _, err := b.Finish(t.Context(), r.ID, first.Run, 500, "internal"); !errors.Is(err, approval.ErrState) {
		t.Errorf("a late report: %v", err)
	}
	done, err := b.Finish(t.Context(), r.ID, second.Run, 200, "")
	if err != nil || done.State != api.ApprovalExecuted || done.Status != 200 {
		t.Errorf("%+v: %v", done, err)
	}
	if _, err := b.Body(t.Context(), r.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its body is kept: %v", err)
	}
}

// A failure that comes after the change was made does not unmake it.
func TestAFailureAfterTheChange(t *testing.T) {
	b, st, _ := open(t)
	r, err := b.Approve(t.Context(), ask(t, b).ID, bob, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := mark(t, b, st, r); err != nil {
		t.Fatal(err)
	}
	if r, err = b.Finish(t.Context(), r.ID, r.Run, 500, "internal"); err != nil || r.State != api.ApprovalExecuted || r.Code != "internal" {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestWhoMayNot(t *testing.T) {
	b, _, _ := open(t)
	r := ask(t, b)
	for _, who := range []admin.Identity{ann, nobody} {
		if _, err := b.Approve(t.Context(), r.ID, who, "", quiet); !errors.Is(err, approval.ErrOwn) {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := b.Approve(t.Context(), r.ID, bob, strings.Repeat("x", 2000), quiet); !errors.Is(err, approval.ErrReason) {
		t.Error(err)
	}
	failed := errors.New("no entry")
	if _, err := b.Approve(t.Context(), r.ID, bob, "", func(store.Tx, approval.Request) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if r, err := b.Get(t.Context(), r.ID); err != nil || r.State != api.ApprovalPending {
		t.Errorf("%+v: %v", r, err)
	}
	if r, err := b.Deny(t.Context(), r.ID, nobody, "", quiet); err != nil || r.State != api.ApprovalDenied {
		t.Errorf("%+v: %v", r, err)
	}
}

// A body opens only for the request that it came with.
func TestBodies(t *testing.T) {
	b, st, _ := open(t)
	one, two := ask(t, b), ask(t, b)
	if raw, err := b.Body(t.Context(), one.ID); err != nil || string(raw) != "body" {
		t.Errorf("%q: %v", raw, err)
	}
	err := st.Update(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("approval/body/" + one.ID)
		if err != nil {
			return err
		}
		if strings.Contains(string(r.Value), "body") {
			t.Error("it is not sealed")
		}
		_, err = tx.Put("approval/body/"+two.ID, r.Value, store.Any)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Body(t.Context(), two.ID); !errors.Is(err, approval.ErrSealed) {
		t.Errorf("swapped: %v", err)
	}
}

// Requests do not pile up: neither those that wait, nor those that did.
func TestBounds(t *testing.T) {
	b, st, c := open(t)
	for range approval.MaxPending {
		ask(t, b)
	}
	if _, err := b.Ask(t.Context(), approval.Request{Asker: ann}, nil, quiet); !errors.Is(err, approval.ErrFull) {
		t.Errorf("too many: %v", err)
	}
	c.advance(time.Hour)
	last := ask(t, b) // the others have expired
	all, err := b.List(t.Context())
	if err != nil || len(all) != approval.MaxPending+1 || all[0].ID != last.ID || all[1].State != api.ApprovalExpired {
		t.Errorf("%d of them, %v", len(all), err)
	}
	c.advance(31 * 24 * time.Hour)
	if _, err := store.Sweep(t.Context(), st, c.now()); err != nil {
		t.Fatal(err)
	}
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%d are kept for ever: %v", len(all), err)
	}
	if _, err := b.Get(t.Context(), fmt.Sprintf("%012d", 0)); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
