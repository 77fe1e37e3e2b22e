// Package approval keeps the changes that need two people until the second one
// has spoken.
//
// What is kept is the request itself: method, path, body, who asked and which
// version of the object they saw. Approving it means making the same request
// once more on behalf of who asked, so a change that waited is checked, refused
// and recorded like any other. The body is sealed under a key of the tenant's
// ring, because it may be a secret that only guests may ever see.
//
// A request is carried out once: approving it takes it out of the pending ones
// in a transaction of its own, and whoever carries it out marks it in the same
// transaction as the change (see [Book.Mark]).
package approval

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records in a tenant's store: what a list shows, and the sealed body apart.
const (
	prefixInfo = "approval/info/"
	prefixBody = "approval/body/"
)

// Limits.
const (
	// MaxPending bounds what waits at one time.
	MaxPending = 200
	maxKept    = 2000
	maxReason  = 1024
	// keep is for how long one can look up what became of a request.
	keep = 30 * 24 * time.Hour
	// stuck is after how long an approved change that nobody reported on may be
	// carried out again: its broker died on the way.
	stuck = time.Minute
)

var (
	// ErrState says that a request no longer waits: it was decided, or expired.
	ErrState = errors.New("approval: it does not wait for a decision any more")
	// ErrOwn says that an author tried to approve.
	ErrOwn = errors.New("approval: nobody approves what they asked for themselves")
	// ErrFull says that too many requests wait.
	ErrFull = fmt.Errorf("approval: %d requests wait already", MaxPending)
	// ErrChanged says that the object is not what it was when its change was
	// asked for.
	ErrChanged = errors.New("approval: the object has changed since this was asked for")
	// ErrReason says that a reason is too long.
	ErrReason = fmt.Errorf("approval: a reason has at most %d bytes", maxReason)
)

// Request is one change that waits, or did.
type Request struct {
	api.Approval

	Asker   admin.Identity `json:"asker"`
	IfMatch string         `json:"if_match,omitempty"`
	// Run is drawn for each attempt to carry it out.
	Run string `json:"run,omitempty"`
}

// Change is called within the transaction of a step, so that its audit entry
// becomes durable together with it.
type Change func(tx store.Tx, r Request) error

// Book keeps the requests of one tenant. It is safe for concurrent use.
type Book struct {
	st   store.Store
	seal *sealer
	life time.Duration
	now  func() time.Time
}

// Open returns the requests in st, whose bodies are sealed under a key of the
// ring. They wait for life.
func Open(st store.Store, ring Ring, life time.Duration, now func() time.Time) *Book {
	return &Book{st: st, seal: &sealer{ring: ring}, life: life, now: now}
}

// Ask keeps a request until it is decided or expires. Of r, the caller fills in
// what was asked and by whom.
func (b *Book) Ask(ctx context.Context, r Request, body []byte, change Change) (Request, error) {
	r.ID = strings.ToLower(rand.Text()[:12])
	r.State, r.Created = api.ApprovalPending, b.now().UTC()
	r.Expires = r.Created.Add(b.life)
	r.Author = r.Asker.String()
	sum := sha256.Sum256(body)
	r.SHA256, r.Size = hex.EncodeToString(sum[:]), len(body)
	sealed, err := b.seal.close(ctx, r.ID, body)
	if err != nil {
		return Request{}, err
	}
	err = b.st.Update(ctx, func(tx store.Tx) error {
		if err := b.room(tx); err != nil {
			return err
		}
		if _, err := tx.PutUntil(prefixBody+r.ID, sealed, store.Absent, r.Expires.Add(keep)); err != nil {
			return err
		}
		return b.put(tx, &r, store.Absent, change)
	})
	return r, err
}

// room returns ErrFull if too many requests wait.
func (b *Book) room(tx store.Tx) error {
	all, err := tx.List(prefixInfo, "", maxKept)
	if err != nil {
		return err
	}
	pending := 0
	for _, raw := range all {
		r, err := decode(raw)
		if err != nil {
			return err
		}
		if b.aged(r).State == api.ApprovalPending {
			pending++
		}
	}
	if pending >= MaxPending || len(all) >= maxKept {
		return ErrFull
	}
	return nil
}

// aged is r as it is now.
func (b *Book) aged(r Request) Request {
	if r.State == api.ApprovalPending && !b.now().Before(r.Expires) {
		r.State = api.ApprovalExpired
	}
	return r
}

// List returns the requests, newest first.
func (b *Book) List(ctx context.Context) ([]Request, error) {
	var out []Request
	err := b.st.View(ctx, func(tx store.Tx) error {
		out = nil
		all, err := tx.List(prefixInfo, "", maxKept)
		if err != nil {
			return err
		}
		for _, raw := range all {
			r, err := decode(raw)
			if err != nil {
				return err
			}
			out = append(out, b.aged(r))
		}
		return nil
	})
	slices.SortStableFunc(out, func(x, y Request) int { return y.Created.Compare(x.Created) })
	return out, err
}

// Get returns one request; store.ErrNotFound if there is none.
func (b *Book) Get(ctx context.Context, id string) (Request, error) {
	var r Request
	err := b.st.View(ctx, func(tx store.Tx) (err error) {
		r, err = b.get(tx, id)
		return err
	})
	return r, err
}

// Body opens what a request would write.
func (b *Book) Body(ctx context.Context, id string) ([]byte, error) {
	var raw store.Record
	err := b.st.View(ctx, func(tx store.Tx) (err error) {
		raw, err = tx.Get(prefixBody + id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.seal.open(ctx, id, raw.Value)
}

// Approve takes a request out of the waiting ones, for the caller to carry it
// out: its Run is the caller's. One that was approved a while ago and that
// nobody has reported on is taken up again.
func (b *Book) Approve(ctx context.Context, id string, who admin.Identity, reason string, change Change) (Request, error) {
	return b.decide(ctx, id, reason, change, func(r *Request) error {
		if r.Asker.Same(who) {
			return ErrOwn
		}
		again := r.State == api.ApprovalApproved && b.now().Sub(r.Decided) >= stuck
		if r.State != api.ApprovalPending && !again {
			return ErrState
		}
		r.State, r.Decider, r.Run = api.ApprovalApproved, who.String(), rand.Text()
		return nil
	})
}

// Deny ends a request. Who asked for it withdraws it.
func (b *Book) Deny(ctx context.Context, id string, who admin.Identity, reason string, change Change) (Request, error) {
	return b.decide(ctx, id, reason, change, func(r *Request) error {
		if r.State != api.ApprovalPending {
			return ErrState
		}
		r.State, r.Decider = api.ApprovalDenied, who.String()
		if who.Subject != "" && r.Asker.Same(who) {
			r.State = api.ApprovalWithdrawn
		}
		return nil
	})
}

func (b *Book) decide(ctx context.Context, id, reason string, change Change, step func(*Request) error) (Request, error) {
	if len(reason) > maxReason {
		return Request{}, ErrReason
	}
	var r Request
	err := b.st.Update(ctx, func(tx store.Tx) (err error) {
		if r, err = b.get(tx, id); err != nil {
			return err
		}
		if err := step(&r); err != nil {
			return err
		}
		r.Reason, r.Decided = reason, b.now().UTC()
		return b.put(tx, &r, store.Version(r.Version), change)
	})
	return r, err
}

// Mark notes, in the transaction of the change itself, that a run has carried a
// request out. It may be called more than once for one run; for another run it
// is ErrState, which undoes that transaction.
func (b *Book) Mark(tx store.Tx, id, run string) error {
	r, err := b.get(tx, id)
	if err != nil {
		return err
	}
	if r.Run != run || (r.State != api.ApprovalApproved && r.State != api.ApprovalExecuted) {
		return ErrState
	}
	if r.State == api.ApprovalExecuted {
		return nil
	}
	r.State = api.ApprovalExecuted
	return b.put(tx, &r, store.Version(r.Version), nil)
}

// Finish notes the answer of a run. The body is not needed any more.
func (b *Book) Finish(ctx context.Context, id, run string, status int, code string) (Request, error) {
	var r Request
	err := b.st.Update(ctx, func(tx store.Tx) (err error) {
		if r, err = b.get(tx, id); err != nil {
			return err
		}
		if r.Run != run {
			return ErrState
		}
		r.Status, r.Code = status, code
		if status/100 == 2 {
			r.State = api.ApprovalExecuted
		} else if r.State == api.ApprovalApproved {
			r.State = api.ApprovalFailed
		}
		if err := tx.Delete(prefixBody+id, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return b.put(tx, &r, store.Version(r.Version), nil)
	})
	return r, err
}

func (b *Book) get(tx store.Tx, id string) (Request, error) {
	if len(id) != 12 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return Request{}, store.ErrNotFound
	}
	raw, err := tx.Get(prefixInfo + id)
	if err != nil {
		return Request{}, err
	}
	r, err := decode(raw)
	return b.aged(r), err
}

func (b *Book) put(tx store.Tx, r *Request, want store.Version, change Change) error {
	stored := *r
	stored.Version = 0
	raw, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	v, err := tx.PutUntil(prefixInfo+r.ID, raw, want, r.Expires.Add(keep))
	if err != nil {
		return err
	}
	r.Version = int64(v)
	if change == nil {
		return nil
	}
	return change(tx, *r)
}

func decode(raw store.Record) (Request, error) {
	var r Request
	if err := json.Unmarshal(raw.Value, &r); err != nil {
		return r, fmt.Errorf("the record %s is damaged: %w", raw.Key, err)
	}
	r.Version = int64(raw.Version)
	return r, nil
}
