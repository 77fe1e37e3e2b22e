package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	"modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// query names one prepared statement.
type query int

const (
	begin query = iota
	beginWrite
	commit
	rollback
	get
	version
	list
	expired
	floor
	put
	remove
	raise
	numQueries
)

var text = [numQueries]string{
	begin:      `BEGIN`,
	beginWrite: `BEGIN IMMEDIATE`,
	commit:     `COMMIT`,
	rollback:   `ROLLBACK`,
	get:        `SELECT version, modified, expires, value FROM records WHERE key = ?1`,
	version:    `SELECT version FROM records WHERE key = ?1`,
	list: `SELECT key, version, modified, expires, value FROM records
		WHERE key >= ?1 AND key > ?2 AND key < ?3 ORDER BY key LIMIT ?4`,
	expired: `SELECT key, version, expires FROM records INDEXED BY expiring
		WHERE expires > 0 AND expires < ?3 AND key >= ?1 AND key < ?2 ORDER BY expires LIMIT ?4`,
	floor: `SELECT version FROM floors WHERE lane = ?1`,
	put: `INSERT INTO records (key, version, modified, expires, value) VALUES (?1, ?2, ?3, ?4, ?5)
		ON CONFLICT (key) DO UPDATE SET version = ?2, modified = ?3, expires = ?4, value = ?5`,
	remove: `DELETE FROM records WHERE key = ?1`,
	raise: `INSERT INTO floors (lane, version) VALUES (?1, ?2)
		ON CONFLICT (lane) DO UPDATE SET version = ?2 WHERE version < ?2`,
}

// cacheKiB is what each connection keeps of the file's pages. SQLite's own 2 MB
// would be 10 MB for all of them, and rows that are asked for again come from
// memory that they share.
const cacheKiB = 200

// source is the driver's name of the file, with what each connection sets.
func source(path string, readOnly bool) string {
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"temp_store(MEMORY)", // what a query spills never reaches the disk
		"journal_size_limit(67108864)",
		fmt.Sprintf("cache_size(-%d)", cacheKiB),
		"trusted_schema(OFF)",
	}, "_defensive": {"1"}}
	if readOnly {
		q.Set("_query_only", "1")
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	return u.String()
}

// statement is what the driver's prepared statements do.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

var errStatement = errors.New("the driver's statements lack contexts")

// conn is one connection with its prepared statements, for one goroutine at a
// time. It goes below database/sql, which would prepare, lock and convert by
// reflection for each of the dozen statements of a request. It gives the
// driver no context, either: a statement takes microseconds, and one that was
// interrupted would undo the whole transaction, of which others are members.
type conn struct {
	raw        driver.Conn
	statements [numQueries]statement
	args       [8]driver.NamedValue
}

func connect(ctx context.Context, path string, readOnly bool) (*conn, error) {
	connector, err := sqlite.NewConnector(source(path, readOnly))
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw}
	for i := range c.args {
		c.args[i].Ordinal = i + 1
	}
	for q := range numQueries {
		s, err := raw.Prepare(text[q])
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		var ok bool
		if c.statements[q], ok = s.(statement); !ok {
			return nil, errors.Join(errStatement, c.Close())
		}
	}
	return c, nil
}

func (c *conn) Close() error {
	var errs []error
	for _, s := range c.statements {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

func (c *conn) bind(args []driver.Value) []driver.NamedValue {
	for i, a := range args {
		c.args[i].Value = a
	}
	return c.args[:len(args)]
}

func (c *conn) exec(q query, args ...driver.Value) error {
	_, err := c.statements[q].ExecContext(context.Background(), c.bind(args))
	return err
}

// rows calls each after each row has been read into to.
func (c *conn) rows(q query, to []driver.Value, each func(), args ...driver.Value) (err error) {
	rows, err := c.statements[q].QueryContext(context.Background(), c.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for {
		switch err := rows.Next(to); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		each()
	}
}

func integer(v driver.Value) int64 { n, _ := v.(int64); return n }
func blob(v driver.Value) []byte   { b, _ := v.([]byte); return b }

func (c *conn) Get(_ context.Context, key string) (group.Row, bool, error) {
	r, found := group.Row{Key: key}, false
	var to [4]driver.Value
	err := c.rows(get, to[:], func() {
		r.Version, r.Modified, r.Expires, r.Value = store.Version(integer(to[0])), integer(to[1]), integer(to[2]), blob(to[3])
		found = true
	}, []byte(key))
	return r, found, unavailable("get", err)
}

func (c *conn) Version(_ context.Context, key string) (store.Version, error) {
	v, err := c.number(version, []byte(key))
	return v, unavailable("get", err)
}

func (c *conn) Floor(_ context.Context, lane group.Lane) (store.Version, error) {
	v, err := c.number(floor, int64(lane))
	return v, unavailable("get", err)
}

func (c *conn) number(q query, arg driver.Value) (store.Version, error) {
	var to [1]driver.Value
	var v store.Version
	err := c.rows(q, to[:], func() { v = store.Version(integer(to[0])) }, arg)
	return v, err
}

func (c *conn) List(_ context.Context, prefix, after string, limit int) ([]group.Row, error) {
	var out []group.Row
	var to [5]driver.Value
	err := c.rows(list, to[:], func() {
		out = append(out, group.Row{
			Key: string(blob(to[0])), Version: store.Version(integer(to[1])),
			Modified: integer(to[2]), Expires: integer(to[3]), Value: blob(to[4]),
		})
		// SQLite begins at the first bound that it is given, whatever the second
		// says: without the maximum a page would cost what all before it do.
	}, []byte(max(prefix, after)), []byte(after), group.After(prefix), int64(limit))
	return out, unavailable("list", err)
}

func (c *conn) Expired(_ context.Context, prefix string, now int64, limit int) ([]group.Due, error) {
	var out []group.Due
	var to [3]driver.Value
	err := c.rows(expired, to[:], func() {
		out = append(out, group.Due{Key: string(blob(to[0])), Version: store.Version(integer(to[1])), Expires: integer(to[2])})
	}, []byte(prefix), group.After(prefix), now, int64(limit))
	return out, unavailable("list expired", err)
}

// unit is the write transaction on the one connection that writes. It excludes
// every other writer, so what is in memory stays true until it commits.
type unit struct {
	*conn
	memory  *memory
	era     uint64
	commits uint32 // of all processes, before this one
}

func (u unit) Get(ctx context.Context, key string) (group.Row, bool, error) {
	if row, ok := u.memory.find(key, u.era); ok {
		return owned(key, row)
	}
	row, found, err := u.conn.Get(ctx, key)
	if err == nil {
		u.memory.learned(u.era, row, found)
	}
	return row, found, err
}

func (u unit) Version(ctx context.Context, key string) (store.Version, error) {
	row, ok := u.memory.find(key, u.era)
	switch {
	case !ok:
		return u.conn.Version(ctx, key)
	case row == nil:
		return 0, nil
	}
	return row.Version, nil
}

func (u unit) Commit(_ context.Context, c group.Changes) error {
	err := u.write(c)
	if err == nil {
		err = u.exec(commit)
	}
	if err != nil {
		u.Rollback() // a commit that found the disk full leaves it open
		return unavailable("commit", err)
	}
	u.memory.committed(u.commits, c)
	return nil
}

func (u unit) write(c group.Changes) error {
	for _, key := range c.Delete {
		if err := u.exec(remove, []byte(key)); err != nil {
			return err
		}
	}
	for _, r := range c.Put {
		if err := u.exec(put, []byte(r.Key), int64(r.Version), r.Modified, r.Expires, r.Value); err != nil {
			return err
		}
	}
	for lane, v := range c.Floors {
		if err := u.exec(raise, int64(lane), int64(v)); err != nil {
			return err
		}
	}
	return nil
}

func (u unit) Rollback() { _ = u.exec(rollback) } // an error says that SQLite has done it already

// unavailable names the engine and what it was doing, and marks trouble that
// passes: a lock that another process holds, or a disk that is full.
func unavailable(verb string, err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	trouble := errors.As(err, &e)
	err = fmt.Errorf("sqlite: %s: %w", verb, err)
	if trouble {
		switch e.Code() & 0xff { // the primary code
		case codes.SQLITE_BUSY, codes.SQLITE_FULL, codes.SQLITE_IOERR, codes.SQLITE_READONLY, codes.SQLITE_NOMEM:
			return store.Unavailable(err)
		}
	}
	return err
}
