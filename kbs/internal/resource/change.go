package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrCurrent says that the current value cannot be destroyed: the resource
// would have none.
var ErrCurrent = errors.New("resource: this is the current value; store another first, or delete the resource")

// errMeanwhile says that a resource changed between the preparation of a change
// and its commit.
var errMeanwhile = fmt.Errorf("it changed meanwhile: %w", store.ErrConflict)

// attempts bounds how often a change that wants whatever is there begins again.
const attempts = 8

// Apply makes a change in a transaction of its own.
func (b *Builtin) Apply(ctx context.Context, c Change) (info api.ResourceInfo, err error) {
	err = b.Run(ctx, c, func(commit Commit) error {
		return b.Store.Update(ctx, func(tx store.Tx) (err error) {
			info, err = commit(tx)
			return err
		})
	})
	return info, err
}

// Run implements Transactional.
func (b *Builtin) Run(ctx context.Context, c Change, in func(Commit) error) error {
	for i := 1; ; i++ {
		err := kek.Current(ctx, b.Keys, func() error {
			commit, err := b.begin(ctx, c)
			if err != nil {
				return err
			}
			return in(commit)
		})
		if !errors.Is(err, errMeanwhile) || c.Want != int64(store.Any) || i == attempts {
			return err
		}
	}
}

// begin does what asks the holder of the master key, and returns the rest.
func (b *Builtin) begin(ctx context.Context, c Change) (Commit, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	switch c.Op {
	case OpPut:
		return b.beginPut(ctx, c, c.Value, 0)
	case OpRollback:
		if c.Version <= 0 {
			return nil, fmt.Errorf("version %d of %s: %w", c.Version, c.Path, store.ErrNotFound)
		}
		old, err := b.Get(ctx, c.Path, c.Version)
		if err != nil {
			return nil, err
		}
		return b.beginPut(ctx, c, old.Value, c.Version)
	case OpMeta, OpDestroy:
		return b.beginEdit(ctx, c)
	default:
		return func(tx store.Tx) (api.ResourceInfo, error) { return b.remove(tx, c) }, nil
	}
}

func (c Change) check() error {
	if err := c.Path.check(); err != nil {
		return err
	}
	if c.Op < OpPut || c.Op > OpDelete || (c.Op == OpMeta && c.Meta == nil) {
		return ErrUnsupported
	}
	if c.Meta != nil {
		if err := CheckMeta(*c.Meta); err != nil {
			return err
		}
	}
	if c.Value.Len() > MaxValue {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, c.Value.Len(), MaxValue)
	}
	return nil
}

// seen compares the version that a change names with the one there is.
func (c Change) seen(version int64) error {
	if c.Want != int64(store.Any) && c.Want != version {
		return fmt.Errorf("%s is at version %d, not %d: %w", c.Path, version, c.Want, store.ErrConflict)
	}
	return nil
}

// known is what a preparation has learnt of a resource: the key that its head
// must be sealed with, or that there is none.
type known struct {
	present bool
	key     dataKey
}

// look confirms the head that a change will build upon: what somebody wrote
// into the store behind our back must not be sealed anew.
func (b *Builtin) look(ctx context.Context, p Path) (known, error) {
	var s stored
	err := b.Store.View(ctx, func(tx store.Tx) (err error) {
		s, err = getHead(tx, p)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return known{}, nil
	}
	if err != nil {
		return known{}, err
	}
	key, err := b.trusted(ctx, p, s)
	return known{true, key}, err
}

// confirm reads the head again, within the commit.
func (k known) confirm(tx store.Tx, c Change) (stored, error) {
	s, err := getHead(tx, c.Path)
	if err != nil {
		return s, err
	}
	if err := c.seen(s.head.Version); err != nil {
		return s, err
	}
	if !k.present || k.key.checkHead(s.record, c.Path.String(), int64(s.at)) != nil {
		return s, fmt.Errorf("%s: %w", c.Path, errMeanwhile)
	}
	return s, nil
}

// beginPut wraps a fresh data key, so that the commit asks nobody. copyOf is
// the version that the value is a copy of, or 0.
func (b *Builtin) beginPut(ctx context.Context, c Change, value secret.Bytes, copyOf int64) (Commit, error) {
	there, err := b.look(ctx, c.Path)
	if err != nil {
		return nil, err
	}
	key, wrapped, err := freshKey(ctx, b.Keys, c.Path.String())
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx) (api.ResourceInfo, error) {
		if err := kek.Fence(b.Keys, tx, wrapped); err != nil {
			return api.ResourceInfo{}, err
		}
		s, err := there.confirm(tx, c)
		if errors.Is(err, store.ErrNotFound) && c.Op == OpPut {
			s, err = b.slot(tx, c)
		}
		if err != nil {
			return api.ResourceInfo{}, err
		}
		if copyOf != 0 {
			if _, ok := s.find(copyOf); !ok {
				return api.ResourceInfo{}, fmt.Errorf("version %d of %s: %w", copyOf, c.Path, store.ErrNotFound)
			}
		}
		b.stamp(&s.head, c)
		v := version{Version: s.head.Version, Size: value.Len(), Author: c.Author, Time: s.Modified, CopyOf: copyOf}
		s.Versions = append(s.Versions, v)
		s.keys = append(s.keys, wrappedKey{v.Version, wrapped})
		if err := b.prune(tx, c.Path, &s); err != nil {
			return api.ResourceInfo{}, err
		}
		if _, err := tx.Put(valueKey(c.Path, v.Version), key.sealValue(value, c.Path.String(), v), store.Any); err != nil {
			return api.ResourceInfo{}, fmt.Errorf("resource: %w", err)
		}
		return s.full(c.Path.String()), s.write(tx, c.Path, key)
	}, nil
}

// slot makes the record of a new resource. Its versions begin above those of
// any that was deleted: an old value never fits into a new resource of the
// same path.
func (b *Builtin) slot(tx store.Tx, c Change) (stored, error) {
	if err := c.seen(0); err != nil {
		return stored{}, err
	}
	at, err := tx.Put(headKey(c.Path), nil, store.Absent)
	if err != nil {
		return stored{}, fmt.Errorf("resource: %w", err)
	}
	s := stored{at: at, head: head{Version: int64(at) - 1, Created: b.now()}}
	return s, countTx(tx, 1)
}

func (b *Builtin) now() time.Time { return b.Now().UTC().Truncate(time.Microsecond) }

// stamp makes the head that of the next version.
func (b *Builtin) stamp(h *head, c Change) {
	h.Version++
	h.Author, h.Modified = c.Author, b.now()
	if c.Meta != nil {
		h.Meta = normal(*c.Meta)
	}
}

// prune forgets the oldest values beyond Keep.
func (b *Builtin) prune(tx store.Tx, p Path, s *stored) error {
	for len(s.Versions) > b.Keep {
		if err := s.forget(tx, p, s.Versions[0].Version); err != nil {
			return err
		}
		s.Versions = s.Versions[1:]
	}
	return nil
}

// forget wipes a value and its data key.
func (s *stored) forget(tx store.Tx, p Path, n int64) error {
	s.keys = slices.DeleteFunc(slices.Clone(s.keys), func(k wrappedKey) bool { return k.version == n })
	if err := tx.Delete(valueKey(p, n), store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("resource: %w", err)
	}
	return nil
}

// write seals the head for the version of the record that it becomes.
func (s *stored) write(tx store.Tx, p Path, current dataKey) error {
	raw, err := json.Marshal(s.head)
	if err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	next := s.at + 1
	s.text, s.tag = raw, current.sealHead(raw, p.String(), int64(next))
	at, err := tx.Put(headKey(p), s.marshal(), s.at)
	if err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	if at != next {
		return fmt.Errorf("resource: the store wrote version %d, and %d was sealed", at, next)
	}
	return nil
}

// beginEdit prepares a change of the head alone.
func (b *Builtin) beginEdit(ctx context.Context, c Change) (Commit, error) {
	there, err := b.look(ctx, c.Path)
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx) (api.ResourceInfo, error) {
		s, err := there.confirm(tx, c)
		if err != nil {
			return api.ResourceInfo{}, err
		}
		b.stamp(&s.head, c)
		if c.Op == OpDestroy {
			if err := s.destroy(tx, c); err != nil {
				return api.ResourceInfo{}, err
			}
		}
		return s.full(c.Path.String()), s.write(tx, c.Path, there.key)
	}, nil
}

// destroy wipes one former value. That it was there stays in the head, until
// it is pruned.
func (s *stored) destroy(tx store.Tx, c Change) error {
	i := slices.IndexFunc(s.Versions, func(v version) bool { return v.Version == c.Version && v.Destroyed.IsZero() })
	switch {
	case i < 0 || c.Version == 0:
		return fmt.Errorf("version %d of %s: %w", c.Version, c.Path, store.ErrNotFound)
	case i == len(s.Versions)-1:
		return ErrCurrent
	}
	s.Versions[i].Destroyed = s.Modified
	return s.forget(tx, c.Path, c.Version)
}

// remove deletes a resource; also one whose record is damaged.
func (b *Builtin) remove(tx store.Tx, c Change) (api.ResourceInfo, error) {
	s, err := getHead(tx, c.Path)
	if err != nil && !errors.Is(err, ErrSealed) {
		return api.ResourceInfo{}, err
	}
	info := api.ResourceInfo{Path: c.Path.String()}
	if err == nil {
		if err := c.seen(s.head.Version); err != nil {
			return api.ResourceInfo{}, err
		}
		info = s.info(c.Path.String())
	}
	return info, wipe(tx, c.Path)
}

// wipe removes every record of a path.
func wipe(tx store.Tx, p Path) error {
	keys := []string{headKey(p), prefixReleased + p.String()}
	for after := ""; ; {
		rs, err := tx.List(prefixValue+p.String()+"/", after, maxKeys)
		if err != nil {
			return fmt.Errorf("resource: %w", err)
		}
		for _, r := range rs {
			keys = append(keys, r.Key)
			after = r.Key
		}
		if len(rs) < maxKeys {
			break
		}
	}
	for _, k := range keys {
		if err := tx.Delete(k, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("resource: %w", err)
		}
	}
	return countTx(tx, -1)
}
