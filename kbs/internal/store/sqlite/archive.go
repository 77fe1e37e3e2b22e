package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/archive"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

var _ archive.Store = (*engine)(nil)

// Export is that of archive.Store. The snapshot keeps SQLite from shortening
// its log as long as it lasts, and nobody from writing.
func (e *engine) Export(ctx context.Context, emit func(archive.Item) error) error {
	return e.snapshot(ctx, func(c *conn) error {
		err := c.scan(ctx, `SELECT lane, version FROM floors ORDER BY lane`, 2, func(v []driver.Value) error {
			return emit(archive.Item{Lane: group.Lane(integer(v[0])), Version: store.Version(integer(v[1]))})
		})
		if err != nil {
			return err
		}
		return c.scan(ctx, `SELECT key, version, modified, expires, value FROM records ORDER BY key`, 5, func(v []driver.Value) error {
			return emit(archive.Item{Row: &group.Row{
				Key: string(blob(v[0])), Version: store.Version(integer(v[1])),
				Modified: integer(v[2]), Expires: integer(v[3]), Value: blob(v[4]),
			}})
		})
	})
}

// scan hands out rows while they are read.
func (c *conn) scan(ctx context.Context, query string, columns int, each func([]driver.Value) error) (err error) {
	raw, err := c.raw.Prepare(query)
	if err != nil {
		return unavailable("export", err)
	}
	s, ok := raw.(statement)
	if !ok {
		return errStatement
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	rows, err := s.QueryContext(context.Background(), nil)
	if err != nil {
		return unavailable("export", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	to := make([]driver.Value, columns)
	for {
		switch err := rows.Next(to); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return unavailable("export", err)
		}
		if err := errors.Join(ctx.Err(), each(to)); err != nil {
			return err
		}
	}
}

// Import is that of archive.Store.
func (e *engine) Import(ctx context.Context, replace bool, next func() (archive.Item, error)) error {
	return e.writers.Alone(ctx, func(u group.Unit) error {
		c := e.writer
		err := c.fill(ctx, replace, next)
		if err == nil {
			err = unavailable("commit", c.exec(commit))
		}
		if err != nil {
			u.Rollback()
		}
		return err
	})
}

func (c *conn) fill(ctx context.Context, replace bool, next func() (archive.Item, error)) error {
	if replace {
		for _, table := range []string{"records", "floors"} {
			if err := c.execText("DELETE FROM " + table); err != nil {
				return unavailable("import", err)
			}
		}
	} else {
		rows, err := c.List(ctx, "", "", 1)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			return fmt.Errorf("%w: it has a record %q", archive.ErrNotEmpty, rows[0].Key)
		}
	}
	for {
		item, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if r := item.Row; r != nil {
			err = c.exec(put, []byte(r.Key), int64(r.Version), r.Modified, r.Expires, r.Value)
		} else {
			err = c.exec(raise, int64(item.Lane), int64(item.Version))
		}
		if err != nil {
			return unavailable("import", err)
		}
	}
}

func (c *conn) execText(query string) error {
	s, err := c.raw.Prepare(query)
	if err != nil {
		return err
	}
	st, ok := s.(statement)
	if !ok {
		return errStatement
	}
	_, err = st.ExecContext(context.Background(), nil)
	return errors.Join(err, st.Close())
}
