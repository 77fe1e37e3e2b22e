// Package lease keeps what was given to whom, and until when: for the day when
// somebody asks what has to be changed because a chip, a measurement or an
// image turned out bad.
//
// A lease is one guest and one object. A guest is what its evidence shows: the
// same chip, software and start data are the same guest, whatever token it has
// earned (see [GuestOf]). A lease ends with the token that it was given for, so
// a guest that stops attesting loses its leases; asking again with a new token
// renews it. Nothing is allowed or refused because of a lease: that a guest
// gets nothing more is the business of package revocation, and the list of
// leases shows what that package says.
//
// A release that finds its lease written down costs a look into a map. The
// first one of a token writes it, in the transaction of its audit entry.
package lease

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const prefix = "lease/"

// Bounds of what is kept.
const (
	// Kept is how long a lease is shown after its end: what a guest was given
	// stays with it.
	Kept = 24 * time.Hour
	// Most is how many leases a tenant has; what is given beyond them is in the
	// audit log only. They are counted once in recount, so there can be some more.
	Most     = 20_000
	recount  = time.Minute
	maxKnown = 1 << 14 // leases that one replica remembers to be written
	scanned  = 1000    // of one page
)

// Grant is one release.
type Grant struct {
	Guest    Guest
	Platform string
	TokenID  string
	Object   string // as in the audit log: resource/REPO/TYPE/TAG
	Version  int64  // of the value; 0 if there are none
	Until    time.Time
}

// Book is the leases of one tenant. It is safe for concurrent use.
type Book struct {
	st   store.Store
	now  func() time.Time
	most int

	mu      sync.Mutex
	known   map[seen]struct{}
	size    int       // as of counted, and what was added since
	counted time.Time // zero: never
}

// seen names what needs not be written again.
type seen struct {
	token, object string
	version       int64
}

// Open returns the book in a tenant's store.
func Open(st store.Store, now func() time.Time) *Book {
	return &Book{st: st, now: now, most: Most, known: map[seen]struct{}{}}
}

// ID names the lease of a guest on an object. Those of one object begin alike.
func ID(g Guest, object string) string { return short(object) + "-" + g.ID }

func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
}

// Record writes a lease down, together with what also does in the same
// transaction. It does neither, and says so, if the lease is written down
// already; or if there is no room, which is full.
func (b *Book) Record(ctx context.Context, g Grant, also func(store.Tx) error) (done, full bool, err error) {
	at := seen{g.TokenID, g.Object, g.Version}
	if b.knows(at) {
		return false, false, nil
	}
	if full, err = b.full(ctx); full || err != nil {
		return false, full, err
	}
	fresh := false
	err = b.st.Update(ctx, func(tx store.Tx) (err error) {
		if fresh, err = b.write(tx, g); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return false, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.known) >= maxKnown {
		clear(b.known) // each is written once more, which does no harm
	}
	b.known[at] = struct{}{}
	if fresh {
		b.size++
	}
	return true, false, nil
}

func (b *Book) knows(at seen) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.known[at]
	return ok
}

func (b *Book) write(tx store.Tx, g Grant) (fresh bool, err error) {
	l := api.Lease{
		ID: ID(g.Guest, g.Object), Guest: g.Guest.ID, Platform: g.Platform, TokenID: g.TokenID, Object: g.Object,
		Version: g.Version, Until: g.Until.UTC(), Renewed: b.now().UTC(), Claims: g.Guest.Claims,
	}
	l.Since = l.Renewed
	before, err := get(tx, l.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		fresh = true
	case err != nil:
		return false, err
	default:
		l.Since = before.Since
		if before.Until.After(l.Until) {
			l.Until = before.Until // of another token that lives longer
		}
	}
	raw, err := json.Marshal(l)
	if err != nil {
		return false, fmt.Errorf("lease: %w", err)
	}
	_, err = tx.PutUntil(prefix+l.ID, raw, store.Any, l.Until.Add(Kept))
	return fresh, err
}

func get(tx store.Tx, id string) (api.Lease, error) {
	r, err := tx.Get(prefix + id)
	if err != nil {
		return api.Lease{}, err
	}
	return parse(r)
}

func parse(r store.Record) (l api.Lease, err error) {
	if err := json.Unmarshal(r.Value, &l); err != nil {
		return l, fmt.Errorf("lease: the record %s is damaged: %w", r.Key, err)
	}
	return l, nil
}

// full reports whether there is no room, and counts now and then.
func (b *Book) full(ctx context.Context) (bool, error) {
	b.mu.Lock()
	due := b.counted.IsZero() || b.now().Sub(b.counted) >= recount
	if due {
		b.counted = b.now() // nobody else counts meanwhile
	}
	size := b.size
	b.mu.Unlock()
	if !due {
		return size >= b.most, nil
	}
	size = 0
	err := b.st.View(ctx, func(tx store.Tx) error {
		size = 0
		for after := ""; size < b.most; {
			rs, err := tx.List(prefix, after, scanned)
			if err != nil {
				return err
			}
			size += len(rs)
			if len(rs) < scanned {
				return nil
			}
			after = rs[len(rs)-1].Key
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	b.size = size
	b.mu.Unlock()
	return size >= b.most, nil
}

// Get returns a lease that did not end too long ago, else store.ErrNotFound.
func (b *Book) Get(ctx context.Context, id string) (l api.Lease, err error) {
	err = b.st.View(ctx, func(tx store.Tx) (err error) {
		l, err = get(tx, id)
		return err
	})
	if errors.Is(err, store.ErrKey) || err == nil && b.forgotten(l) {
		return api.Lease{}, store.ErrNotFound
	}
	return l, err
}

func (b *Book) forgotten(l api.Lease) bool { return !b.now().Before(l.Until.Add(Kept)) }

// Query selects leases. Zero members select all.
type Query struct {
	After  string // ids that sort after this one
	Object string
	Guest  string // its id, or that of the token that it had last
	Claim  string // PATH=VALUE, in either case
}

// Page returns leases in the order of their ids, those that have ended too, and
// the id to go on after; "" at the end. What it looks at is bounded, so a page
// may be short, or empty.
func (b *Book) Page(ctx context.Context, q Query) (page []api.Lease, next string, err error) {
	begin := prefix
	if q.Object != "" {
		begin += short(q.Object) + "-"
	}
	after := ""
	if q.After != "" {
		after = prefix + q.After
	}
	err = b.st.View(ctx, func(tx store.Tx) error {
		page, next = []api.Lease{}, ""
		rs, err := tx.List(begin, after, scanned)
		if err != nil {
			return err
		}
		for _, r := range rs {
			l, err := parse(r)
			if err != nil {
				return err
			}
			if q.keeps(l) && !b.forgotten(l) {
				page = append(page, l)
			}
		}
		if len(rs) == scanned {
			next = strings.TrimPrefix(rs[scanned-1].Key, prefix)
		}
		return nil
	})
	return page, next, err
}

func (q Query) keeps(l api.Lease) bool {
	if q.Guest != "" && q.Guest != l.Guest && q.Guest != l.TokenID || q.Object != "" && q.Object != l.Object {
		return false
	}
	name, value, _ := strings.Cut(q.Claim, "=")
	seen, ok := l.Claims[name]
	return q.Claim == "" || ok && strings.EqualFold(seen, value)
}
