package group

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// errOver says that somebody kept a transaction.
var errOver = errors.New("store: the transaction is over")

// tx is the one store.Tx of all engines. It carries the contexts of the View
// or Update that it lives in, and no longer.
type tx struct {
	ctx      context.Context // the caller's
	dbctx    context.Context // the database's, which others may share
	db       Reader
	now      func() time.Time
	base     *overlay // what the batch changed before; nil in a view
	own      overlay
	floors   Floors // of the database, as far as the batch has read them
	readOnly bool
	over     bool
	// broken is the first trouble of the database. The transaction must not
	// commit even if the caller's function shrugs it off.
	broken error
}

func (t *tx) fail(err error) error {
	if t.broken == nil {
		t.broken = err
	}
	return err
}

// usable says whether a call may go on.
func (t *tx) usable() error {
	if t.over {
		return errOver
	}
	if t.broken != nil {
		return t.broken
	}
	return t.ctx.Err()
}

func (t *tx) changed(key string) (*Row, bool) {
	if r, ok := t.own.rows[key]; ok {
		return r, true
	}
	if t.base == nil {
		return nil, false
	}
	r, ok := t.base.rows[key]
	return r, ok
}

func (t *tx) Get(key string) (store.Record, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Record{}, err
	}
	if err := t.usable(); err != nil {
		return store.Record{}, err
	}
	if r, ok := t.changed(key); ok {
		if r == nil {
			return store.Record{}, store.ErrNotFound
		}
		rec := record(*r)
		rec.Value = bytes.Clone(r.Value)
		return rec, nil
	}
	r, found, err := t.db.Get(t.dbctx, key)
	if err != nil {
		return store.Record{}, t.fail(err)
	}
	if !found {
		return store.Record{}, store.ErrNotFound
	}
	return record(r), nil
}

func record(r Row) store.Record {
	out := store.Record{Key: r.Key, Version: r.Version, Modified: time.UnixMicro(r.Modified).UTC(), Value: r.Value}
	if r.Expires != 0 {
		out.Expires = time.UnixMicro(r.Expires).UTC()
	}
	return out
}

// List asks the database for as many more records as changes may hide, so that
// enough are left of them.
func (t *tx) List(prefix, after string, limit int) ([]store.Record, error) {
	if limit < 1 {
		return nil, store.ErrLimit
	}
	if err := t.usable(); err != nil {
		return nil, err
	}
	changes := t.within(prefix, after)
	rows, err := t.db.List(t.dbctx, prefix, after, limit+len(changes))
	if err != nil {
		return nil, t.fail(err)
	}
	if len(changes) > 0 {
		rows = slices.DeleteFunc(rows, func(r Row) bool { _, ok := changes[r.Key]; return ok })
		for _, r := range changes {
			if r != nil {
				copied := *r
				copied.Value = bytes.Clone(r.Value)
				rows = append(rows, copied)
			}
		}
		slices.SortFunc(rows, byKey)
	}
	var out []store.Record
	for _, r := range rows[:min(limit, len(rows))] {
		out = append(out, record(r))
	}
	return out, nil
}

func (t *tx) within(prefix, after string) map[string]*Row {
	if t.own.empty() && (t.base == nil || t.base.empty()) {
		return nil
	}
	changes := map[string]*Row{}
	if t.base != nil {
		t.base.within(prefix, after, changes)
	}
	t.own.within(prefix, after, changes)
	return changes
}

func (t *tx) Put(key string, value []byte, want store.Version) (store.Version, error) {
	return t.put(key, value, want, 0)
}

func (t *tx) PutUntil(key string, value []byte, want store.Version, until time.Time) (store.Version, error) {
	return t.put(key, value, want, max(1, until.UnixMicro()))
}

func (t *tx) put(key string, value []byte, want store.Version, expires int64) (store.Version, error) {
	if err := t.writable(key); err != nil {
		return 0, err
	}
	if len(value) > store.MaxValue {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", store.ErrTooLarge, len(value), store.MaxValue)
	}
	have, err := t.version(key)
	if err != nil {
		return 0, err
	}
	if want != store.Any && want != have {
		return 0, store.ErrConflict
	}
	if have == 0 {
		if have, err = t.floor(LaneOf(key)); err != nil {
			return 0, err
		}
	}
	r := &Row{Key: key, Version: have + 1, Modified: t.now().UnixMicro(), Expires: expires, Value: append([]byte{}, value...)}
	t.own.set(key, r)
	return r.Version, nil
}

func (t *tx) Delete(key string, want store.Version) error {
	if err := t.writable(key); err != nil {
		return err
	}
	have, err := t.version(key)
	if err != nil {
		return err
	}
	if have == 0 {
		return store.ErrNotFound
	}
	if want != store.Any && want != have {
		return store.ErrConflict
	}
	t.remove(key, have)
	return nil
}

func (t *tx) remove(key string, last store.Version) {
	t.own.set(key, nil)
	t.own.raise(key, last)
}

func (t *tx) DeleteExpired(prefix string, now time.Time, limit int) (int, error) {
	if t.readOnly {
		return 0, store.ErrReadOnly
	}
	if limit < 1 {
		return 0, store.ErrLimit
	}
	if err := t.usable(); err != nil {
		return 0, err
	}
	changes := t.within(prefix, "")
	due, err := t.db.Expired(t.dbctx, prefix, now.UnixMicro(), limit+len(changes))
	if err != nil {
		return 0, t.fail(err)
	}
	due = slices.DeleteFunc(due, func(d Due) bool { _, ok := changes[d.Key]; return ok })
	for key, r := range changes {
		if r != nil && r.Expires != 0 && r.Expires < now.UnixMicro() {
			due = append(due, Due{Key: key, Version: r.Version, Expires: r.Expires})
		}
	}
	slices.SortFunc(due, func(a, b Due) int {
		return cmp.Or(cmp.Compare(a.Expires, b.Expires), strings.Compare(a.Key, b.Key))
	})
	due = due[:min(limit, len(due))]
	for _, d := range due {
		t.remove(d.Key, d.Version)
	}
	return len(due), nil
}

func (t *tx) writable(key string) error {
	if t.readOnly {
		return store.ErrReadOnly
	}
	if err := store.CheckKey(key); err != nil {
		return err
	}
	return t.usable()
}

// version is 0 if the key is absent.
func (t *tx) version(key string) (store.Version, error) {
	if r, ok := t.changed(key); ok {
		if r == nil {
			return 0, nil
		}
		return r.Version, nil
	}
	v, err := t.db.Version(t.dbctx, key)
	if err != nil {
		return 0, t.fail(err)
	}
	return v, nil
}

func (t *tx) floor(lane Lane) (store.Version, error) {
	v, known := t.floors[lane]
	if !known {
		var err error
		if v, err = t.db.Floor(t.dbctx, lane); err != nil {
			return 0, t.fail(err)
		}
		t.floors[lane] = v
	}
	if t.base != nil {
		v = max(v, t.base.floors[lane])
	}
	return max(v, t.own.floors[lane]), nil
}
