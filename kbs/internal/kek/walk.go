package kek

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Room is a part of the store whose records hold wrapped keys.
type Room interface {
	// Prefix is what the keys of these records begin with, in every scope.
	Prefix() string
	// Rewrap returns what to write in the place of r, whose key is without its
	// scope, and false if nothing in it is under another key than the set's
	// current one. The result is written as version r.Version+1 or not at all.
	// An error that wraps ErrUnwrap or ErrUnknown means that the record cannot
	// be opened, now or later.
	Rewrap(ctx context.Context, keys Rewrapper, r store.Record) ([]byte, bool, error)
}

// Rewrapper moves wrapped keys, of one tenant or of the broker itself.
type Rewrapper interface {
	Wrapper
	// Rewrap puts what this wrapped under the current key. It says false, and
	// returns the same bytes, if they are there already.
	Rewrap(ctx context.Context, envelope, bound []byte) ([]byte, bool, error)
}

// Times of the walk.
const (
	batch = 32 // records of one transaction
	// idle is after how long a walk counts as given up by whoever began it.
	idle = 15 * time.Second
	// lookAfter is how often a replica looks for such a walk.
	lookAfter = 30 * time.Second
)

// Walker puts the records of all rooms and all tenants under the current key,
// a few at a time. Where it is stands in the store, written together with what
// was done, so that after a crash another replica goes on. Of two that work at
// once, one notices and stops.
type Walker struct {
	set     *Set
	of      func(tenant string) Wrapper
	rooms   []Room
	retired func(tx store.Tx, ids []string) error
	log     *slog.Logger
	wake    chan struct{}
}

// NewWalker returns a walker over the rooms. of returns the set as it is bound
// to a tenant, see [Bind]. retired runs in the transaction
// that finds that nothing is under the keys any more.
func NewWalker(set *Set, of func(tenant string) Wrapper, retired func(tx store.Tx, ids []string) error, log *slog.Logger, rooms ...Room) *Walker {
	return &Walker{set: set, of: of, rooms: rooms, retired: retired, log: log, wake: make(chan struct{}, 1)}
}

// Wake tells Run that there is something to do.
func (w *Walker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default: // it has been told
	}
}

// Run walks whenever it is woken, and takes up a walk that another replica has
// left, until ctx ends.
func (w *Walker) Run(ctx context.Context) {
	t := time.NewTicker(lookAfter)
	defer t.Stop()
	w.Wake() // what the last process left
	for {
		var abandoned time.Duration
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-t.C:
			abandoned = idle
		}
		if err := w.walk(ctx, abandoned); err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "the walk to the new master key stopped and will be taken up again", slog.Any("error", err))
		}
	}
}

// Walk works until nothing is left to do, and returns at once if there is
// nothing.
func (w *Walker) Walk(ctx context.Context) error { return w.walk(ctx, 0) }

// errOvertaken says that another replica is walking.
var errOvertaken = errors.New("kek: another replica is at it")

func (w *Walker) walk(ctx context.Context, abandoned time.Duration) error {
	p, r, err := progress(ctx, w.set.st)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !p.Finished.IsZero() || w.set.now().Sub(r.Modified) < abandoned:
		return nil
	}
	if err := w.set.Catch(ctx); err != nil {
		return err
	}
	err = w.passes(ctx, p, r.Version)
	if errors.Is(err, errOvertaken) {
		return nil
	}
	return err
}

func (w *Walker) passes(ctx context.Context, p Progress, version store.Version) error {
	for {
		ranges, err := w.ranges(ctx)
		if err != nil {
			return err
		}
		for _, rg := range ranges {
			if p.After > rg.prefix() && !strings.HasPrefix(p.After, rg.prefix()) {
				continue // this pass has been there
			}
			if p, version, err = w.walkRange(ctx, rg, p, version); err != nil {
				return err
			}
		}
		done := !p.Dirty || p.FailedCount > 0
		if p, version, err = w.endPass(ctx, p, version); err != nil || done {
			return err
		}
	}
}

// rangeOf is the records of one room in one scope.
type rangeOf struct {
	room  Room
	scope string // "" or "t/<tenant>/"
	keys  Rewrapper
}

func (r rangeOf) prefix() string { return r.scope + r.room.Prefix() }

const tenants = "t/"

// ranges returns what a pass goes through, in the order of the keys. It finds
// the tenants by their records, so that none is forgotten that the broker no
// longer serves.
func (w *Walker) ranges(ctx context.Context) ([]rangeOf, error) {
	var names []string
	err := w.set.st.View(ctx, func(tx store.Tx) error {
		names = nil
		for after := ""; ; {
			rs, err := tx.List(tenants, after, 1)
			if err != nil || len(rs) == 0 {
				return err
			}
			name, _, ok := strings.Cut(rs[0].Key[len(tenants):], "/")
			if !ok {
				after = rs[0].Key
				continue
			}
			names = append(names, name)
			after = tenants + name + "0" // "0" follows "/": the first key behind the scope
		}
	})
	var out []rangeOf
	for _, room := range w.rooms {
		out = append(out, rangeOf{room, "", w.set})
		for _, name := range names {
			keys, ok := w.of(name).(Rewrapper)
			if !ok {
				return nil, fmt.Errorf("kek: the keys of tenant %s cannot be moved", name)
			}
			out = append(out, rangeOf{room, tenants + name + "/", keys})
		}
	}
	slices.SortFunc(out, func(a, b rangeOf) int { return strings.Compare(a.prefix(), b.prefix()) })
	return out, err
}

// walkRange goes through one range, from where p has come to.
func (w *Walker) walkRange(ctx context.Context, rg rangeOf, p Progress, version store.Version) (Progress, store.Version, error) {
	after := ""
	if strings.HasPrefix(p.After, rg.prefix()) {
		after = p.After
	}
	for {
		if err := ctx.Err(); err != nil {
			return p, version, err
		}
		var records []store.Record
		err := w.set.st.View(ctx, func(tx store.Tx) (err error) {
			records, err = tx.List(rg.prefix(), after, batch)
			return err
		})
		if err != nil || len(records) == 0 {
			return p, version, err
		}
		after = records[len(records)-1].Key
		if p, version, err = w.step(ctx, rg, records, p, version); err != nil {
			return p, version, err
		}
		if len(records) < batch {
			return p, version, nil
		}
	}
}

// step does one batch. The holders are asked before the transaction, which
// must not wait for them.
func (w *Walker) step(ctx context.Context, rg rangeOf, records []store.Record, p Progress, version store.Version) (Progress, store.Version, error) {
	fresh := make([][]byte, len(records))
	p.After = records[len(records)-1].Key
	for i, r := range records {
		p.Looked++
		r.Key = strings.TrimPrefix(r.Key, rg.scope)
		raw, changed, err := rg.room.Rewrap(ctx, rg.keys, r)
		switch {
		case errors.Is(err, ErrUnwrap), errors.Is(err, ErrUnknown):
			p.fail(records[i].Key)
		case err != nil:
			return p, version, err
		case changed:
			fresh[i] = raw
		}
	}
	next := p
	err := w.set.st.Update(ctx, func(tx store.Tx) error {
		next = p
		for i, r := range records {
			if fresh[i] == nil {
				continue
			}
			next.Dirty = true
			_, err := tx.Put(r.Key, fresh[i], r.Version)
			if errors.Is(err, store.ErrConflict) { // a writer was faster; the next pass looks again
				continue
			}
			if err != nil {
				return err
			}
			next.Moved++
		}
		v, err := putProgress(tx, next, version)
		if errors.Is(err, store.ErrConflict) {
			return errOvertaken
		}
		version = v
		return err
	})
	return next, version, err
}

func (p *Progress) fail(key string) {
	p.FailedCount++
	if len(p.Failed) < maxFailed {
		p.Failed = append(p.Failed[:len(p.Failed):len(p.Failed)], key)
	}
}

// endPass retires the former keys after a pass that found nothing to do, and
// begins another after one that did.
func (w *Walker) endPass(ctx context.Context, p Progress, version store.Version) (Progress, store.Version, error) {
	next := p
	err := w.set.st.Update(ctx, func(tx store.Tx) error {
		next = p
		next.After = ""
		switch {
		case p.FailedCount > 0:
			next.Finished = w.set.now().UTC()
		case p.Dirty:
			next.Pass, next.Looked, next.Dirty = p.Pass+1, 0, false
		default:
			next.Finished = w.set.now().UTC()
			if err := w.retire(tx, p.To); err != nil {
				return err
			}
		}
		v, err := putProgress(tx, next, version)
		if errors.Is(err, store.ErrConflict) {
			return errOvertaken
		}
		version = v
		return err
	})
	return next, version, err
}

func (w *Walker) retire(tx store.Tx, current string) error {
	state, version, err := getState(tx)
	if err != nil {
		return err
	}
	if state.Current != current {
		return errOvertaken // the next rotation has its own walk
	}
	var ids []string
	for i, k := range state.Keys {
		if k.ID != current && k.Retired.IsZero() {
			state.Keys[i].Retired = w.set.now().UTC()
			ids = append(ids, k.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if err := putState(tx, state, version); err != nil {
		return err
	}
	return w.retired(tx, ids)
}
