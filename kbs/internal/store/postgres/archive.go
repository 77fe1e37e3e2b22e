package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/archive"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

var _ archive.Store = (*engine)(nil)

// patience is for transactions that read or write everything.
const patience = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"

// Export is that of archive.Store.
func (e *engine) Export(ctx context.Context, emit func(archive.Item) error) error {
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, e.read, snapshot, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, patience, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		rows, err := t.Query(ctx, "SELECT lane, version FROM kbs_floors ORDER BY lane")
		if err != nil {
			return err
		}
		var lane int32
		var v store.Version
		_, err = pgx.ForEachRow(rows, []any{&lane, &v}, func() error {
			return emit(archive.Item{Lane: group.Lane(lane), Version: v})
		})
		if err != nil {
			return err
		}
		if rows, err = t.Query(ctx, "SELECT key, version, modified, expires, value FROM kbs_records ORDER BY key"); err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scanRow(rows)
			if err != nil {
				return err
			}
			if err := emit(archive.Item{Row: &r}); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("postgres: export: %w", err)
	}
	return nil
}

// Import is that of archive.Store.
func (e *engine) Import(ctx context.Context, replace bool, next func() (archive.Item, error)) error {
	return e.writers.Alone(ctx, func(g group.Unit) error {
		u, ok := g.(*unit)
		if !ok {
			return fmt.Errorf("postgres: import into %T", g)
		}
		defer u.Rollback() // no effect after the commit
		if err := u.fill(ctx, replace, next); err != nil {
			return fmt.Errorf("postgres: import: %w", err)
		}
		_, err := u.pg.Exec(ctx, "COMMIT", pgx.QueryExecModeSimpleProtocol)
		return atCommit("commit", err)
	})
}

func (u *unit) fill(ctx context.Context, replace bool, next func() (archive.Item, error)) error {
	if _, err := u.pg.Exec(ctx, patience, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	if replace {
		if _, err := u.pg.Exec(ctx, "DELETE FROM kbs_records; DELETE FROM kbs_floors", pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	} else {
		rows, err := u.List(ctx, "", "", 1)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			return fmt.Errorf("%w: it has a record %q", archive.ErrNotEmpty, rows[0].Key)
		}
	}
	source := &copying{next: next, floors: group.Floors{}}
	_, err := u.pg.CopyFrom(ctx, pgx.Identifier{"kbs_records"}, []string{"key", "version", "modified", "expires", "value"}, source)
	if source.err != nil {
		return source.err // of which the server's error is a copy
	}
	if err != nil {
		return err
	}
	var b pgx.Batch
	queue(&b, group.Changes{Floors: source.floors})
	return u.pg.SendBatch(ctx, &b).Close()
}

// copying is a pgx.CopyFromSource that keeps the floors, of which there are
// few, for later.
type copying struct {
	next   func() (archive.Item, error)
	floors group.Floors
	row    group.Row
	err    error
}

func (c *copying) Next() bool {
	for {
		item, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			return false
		case err != nil:
			c.err = err
			return false
		case item.Row != nil:
			c.row = *item.Row
			return true
		}
		c.floors[item.Lane] = item.Version
	}
}

func (c *copying) Values() ([]any, error) {
	r := c.row
	return []any{[]byte(r.Key), int64(r.Version), r.Modified, r.Expires, r.Value}, nil
}

func (c *copying) Err() error { return c.err }
