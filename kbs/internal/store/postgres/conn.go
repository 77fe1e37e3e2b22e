package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

const (
	selectRecord  = `SELECT version, modified, expires, value FROM kbs_records WHERE key = $1`
	selectVersion = `SELECT version FROM kbs_records WHERE key = $1`
	selectFloor   = `SELECT version FROM kbs_floors WHERE lane = $1`
	selectList    = `SELECT key, version, modified, expires, value FROM kbs_records
		WHERE key >= $1 AND key > $2 AND key < $3 ORDER BY key LIMIT $4`
	selectExpired = `SELECT key, version, expires FROM kbs_records
		WHERE expires > 0 AND expires < $3 AND key >= $1 AND key < $2 ORDER BY expires LIMIT $4`

	upsert = `INSERT INTO kbs_records (key, version, modified, expires, value)
		SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
		ON CONFLICT (key) DO UPDATE SET version = excluded.version, modified = excluded.modified,
			expires = excluded.expires, value = excluded.value`
	remove = `DELETE FROM kbs_records WHERE key = ANY ($1::bytea[])`
	raise  = `INSERT INTO kbs_floors AS f (lane, version) SELECT * FROM unnest($1::int[], $2::bigint[])
		ON CONFLICT (lane) DO UPDATE SET version = excluded.version WHERE f.version < excluded.version`
)

// conn reads within the transaction of its connection.
type conn struct{ pg *pgx.Conn }

func (c conn) Get(ctx context.Context, key string) (group.Row, bool, error) {
	r, found, err := scanRecord(key, c.pg.QueryRow(ctx, selectRecord, []byte(key)))
	return r, found, beforeCommit(ctx, "get", err)
}

func scanRecord(key string, row pgx.Row) (group.Row, bool, error) {
	r := group.Row{Key: key}
	err := row.Scan(&r.Version, &r.Modified, &r.Expires, &r.Value)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, false, nil
	}
	return r, err == nil, err
}

func (c conn) Version(ctx context.Context, key string) (store.Version, error) {
	return c.number(ctx, selectVersion, []byte(key))
}

func (c conn) Floor(ctx context.Context, lane group.Lane) (store.Version, error) {
	return c.number(ctx, selectFloor, int32(lane))
}

func (c conn) number(ctx context.Context, query string, arg any) (v store.Version, err error) {
	err = c.pg.QueryRow(ctx, query, arg).Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return v, beforeCommit(ctx, "get", err)
}

func (c conn) List(ctx context.Context, prefix, after string, limit int) ([]group.Row, error) {
	rows, err := c.pg.Query(ctx, selectList, []byte(prefix), []byte(after), group.After(prefix), limit)
	if err == nil {
		var out []group.Row
		if out, err = pgx.CollectRows(rows, scanRow); err == nil {
			return out, nil
		}
	}
	return nil, beforeCommit(ctx, "list", err)
}

func scanRow(row pgx.CollectableRow) (r group.Row, err error) {
	var key []byte
	err = row.Scan(&key, &r.Version, &r.Modified, &r.Expires, &r.Value)
	r.Key = string(key)
	return r, err
}

func (c conn) Expired(ctx context.Context, prefix string, now int64, limit int) ([]group.Due, error) {
	rows, err := c.pg.Query(ctx, selectExpired, []byte(prefix), group.After(prefix), now, limit)
	if err == nil {
		var out []group.Due
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d group.Due, err error) {
			var key []byte
			err = row.Scan(&key, &d.Version, &d.Expires)
			d.Key = string(key)
			return d, err
		})
		if err == nil {
			return out, nil
		}
	}
	return nil, beforeCommit(ctx, "list expired", err)
}

// unit is a write transaction that holds the lock of all writers.
type unit struct {
	conn
	pooled *pgxpool.Conn
}

// Commit sends everything at once and waits once.
func (u *unit) Commit(ctx context.Context, c group.Changes) error {
	var b pgx.Batch
	queue(&b, c)
	b.Queue("COMMIT")
	results := u.pg.SendBatch(ctx, &b)
	var last string
	var err error
	for range b.Len() {
		tag, e := results.Exec()
		if e != nil {
			err = e
			break
		}
		last = tag.String()
	}
	if e := results.Close(); err == nil {
		err = e
	}
	if err == nil && last != "COMMIT" { // PostgreSQL answers ROLLBACK where it had given up before
		err = errors.New("the server rolled back: " + last)
	}
	u.Rollback()
	return atCommit("commit", err)
}

func queue(b *pgx.Batch, c group.Changes) {
	if len(c.Delete) > 0 {
		keys := make([][]byte, len(c.Delete))
		for i, key := range c.Delete {
			keys[i] = []byte(key)
		}
		b.Queue(remove, keys)
	}
	if n := len(c.Put); n > 0 {
		keys, values := make([][]byte, n), make([][]byte, n)
		versions, modified, expires := make([]int64, n), make([]int64, n), make([]int64, n)
		for i, r := range c.Put {
			keys[i], values[i] = []byte(r.Key), r.Value
			versions[i], modified[i], expires[i] = int64(r.Version), r.Modified, r.Expires
		}
		b.Queue(upsert, keys, versions, modified, expires, values)
	}
	if len(c.Floors) > 0 {
		var lanes []int32
		var versions []int64
		for lane, v := range c.Floors {
			lanes, versions = append(lanes, int32(lane)), append(versions, int64(v))
		}
		b.Queue(raise, lanes, versions)
	}
}

// Rollback ends what is still open, and gives the connection back. The pool
// closes one that is not idle by then.
func (u *unit) Rollback() {
	if c := u.pooled.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != idle {
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
		defer cancel()
		_, _ = c.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol)
	}
	u.pooled.Release()
}

// idle is the server's word for a connection without a transaction.
const idle = 'I'

// snapshot reads within one read-only transaction, which begins with the
// first read and in the same round trip.
type snapshot struct {
	conn
	begun bool
}

const beginSnapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

func (s *snapshot) begin(ctx context.Context) error {
	if s.begun {
		return nil
	}
	s.begun = true
	_, err := s.pg.Exec(ctx, beginSnapshot, pgx.QueryExecModeSimpleProtocol)
	return beforeCommit(ctx, "begin", err)
}

func (s *snapshot) end(ctx context.Context) {
	if !s.pg.IsClosed() && s.pg.PgConn().TxStatus() != idle {
		_, _ = s.pg.Exec(ctx, "COMMIT", pgx.QueryExecModeSimpleProtocol)
	}
}

// Get is most often all that a View does.
func (s *snapshot) Get(ctx context.Context, key string) (group.Row, bool, error) {
	if s.begun {
		return s.conn.Get(ctx, key)
	}
	s.begun = true
	var b pgx.Batch
	b.Queue(beginSnapshot)
	b.Queue(selectRecord, []byte(key))
	results := s.pg.SendBatch(ctx, &b)
	_, err := results.Exec()
	if err != nil {
		_ = results.Close() // the same error
		return group.Row{}, false, beforeCommit(ctx, "begin", err)
	}
	r, found, err := scanRecord(key, results.QueryRow())
	return r, found, beforeCommit(ctx, "get", errors.Join(err, results.Close()))
}

func (s *snapshot) Version(ctx context.Context, key string) (store.Version, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	return s.conn.Version(ctx, key)
}

func (s *snapshot) Floor(ctx context.Context, lane group.Lane) (store.Version, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	return s.conn.Floor(ctx, lane)
}

func (s *snapshot) List(ctx context.Context, prefix, after string, limit int) ([]group.Row, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s.conn.List(ctx, prefix, after, limit)
}

func (s *snapshot) Expired(ctx context.Context, prefix string, now int64, limit int) ([]group.Due, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s.conn.Expired(ctx, prefix, now, limit)
}
