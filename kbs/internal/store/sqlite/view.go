package sqlite

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// errAgain ends a View that has read one state from memory and could not get a
// snapshot of it.
var errAgain = errors.New("sqlite: another writer was faster than this reader")

// view is the reader of one View: the rows in memory, and from the first that
// is not there on also a snapshot of the database. Both must be of one state,
// so after the first answer of the snapshot nobody may have committed since
// the era began; if somebody has, the View reads from the snapshot alone, or
// starts again if it has already read from memory.
type view struct {
	engine *engine
	era    uint64
	memory bool // is true, and of the same state as the snapshot
	used   bool // something was read from memory
	conn   *conn
	again  bool
}

var _ group.Reader = (*view)(nil)

// View runs f on one state of the store.
func (e *engine) View(ctx context.Context, f func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v := &view{engine: e}
	v.era, v.memory = e.memory.now()
	err := v.run(ctx, f)
	if !v.again {
		return err
	}
	v = &view{engine: e}
	return v.run(ctx, f)
}

func (v *view) run(ctx context.Context, f func(store.Tx) error) error {
	defer v.end()
	return group.View(ctx, ctx, v, f)
}

func (v *view) end() {
	if v.conn != nil {
		v.engine.giveBack(v.conn)
	}
}

// ask runs one question on the snapshot, which the first question takes.
func (v *view) ask(ctx context.Context, question func(*conn) error) error {
	first := v.conn == nil
	if first {
		c, err := v.engine.reader(ctx)
		if err != nil {
			return err
		}
		v.conn = c
	}
	if err := question(v.conn); err != nil {
		return err
	}
	if first && v.memory && !v.engine.memory.still(v.era) {
		v.memory = false
		if v.used {
			v.again = true
			return errAgain
		}
	}
	return nil
}

func (v *view) Get(ctx context.Context, key string) (row group.Row, found bool, err error) {
	if v.memory {
		if row, ok := v.engine.memory.find(key, v.era); ok {
			v.used = true
			return owned(key, row)
		}
	}
	err = v.ask(ctx, func(c *conn) error {
		row, found, err = c.Get(ctx, key)
		return err
	})
	if err == nil && v.memory {
		v.engine.memory.learned(v.era, row, found)
	}
	return row, found, err
}

func (v *view) Version(ctx context.Context, key string) (version store.Version, err error) {
	err = v.ask(ctx, func(c *conn) error {
		version, err = c.Version(ctx, key)
		return err
	})
	return version, err
}

func (v *view) List(ctx context.Context, prefix, after string, limit int) (rows []group.Row, err error) {
	err = v.ask(ctx, func(c *conn) error {
		rows, err = c.List(ctx, prefix, after, limit)
		return err
	})
	return rows, err
}

func (v *view) Expired(ctx context.Context, prefix string, now int64, limit int) (due []group.Due, err error) {
	err = v.ask(ctx, func(c *conn) error {
		due, err = c.Expired(ctx, prefix, now, limit)
		return err
	})
	return due, err
}

func (v *view) Floor(ctx context.Context, lane group.Lane) (floor store.Version, err error) {
	err = v.ask(ctx, func(c *conn) error {
		floor, err = c.Floor(ctx, lane)
		return err
	})
	return floor, err
}
