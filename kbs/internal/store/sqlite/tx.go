package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// query names one prepared statement.
type query int

const (
	get query = iota
	list
	listFrom // without an upper bound
	putAny
	putAbsent
	putAt
	remove
	bury
	numQueries
)

// The tombstone of a key that lives again stays where it is: the record's
// version is above it from then on.
var text = [numQueries]string{
	get: `SELECT version, modified, value FROM records WHERE key = ?1`,
	list: `SELECT key, version, modified, value FROM records
		WHERE key >= ?1 AND key > ?2 AND key < ?3 ORDER BY key LIMIT ?4`,
	listFrom: `SELECT key, version, modified, value FROM records
		WHERE key >= ?1 AND key > ?2 ORDER BY key LIMIT ?3`,
	putAny: `INSERT INTO records (key, version, modified, value)
		VALUES (?1, coalesce((SELECT version FROM tombstones WHERE key = ?1), 0) + 1, ?2, ?3)
		ON CONFLICT (key) DO UPDATE SET version = records.version + 1, modified = ?2, value = ?3
		RETURNING version`,
	putAbsent: `INSERT INTO records (key, version, modified, value)
		VALUES (?1, coalesce((SELECT version FROM tombstones WHERE key = ?1), 0) + 1, ?2, ?3)
		ON CONFLICT (key) DO NOTHING
		RETURNING version`,
	putAt: `UPDATE records SET version = version + 1, modified = ?2, value = ?3
		WHERE key = ?1 AND version = ?4
		RETURNING version`,
	remove: `DELETE FROM records WHERE key = ?1 AND (?2 = -1 OR version = ?2) RETURNING version`,
	bury: `INSERT INTO tombstones (key, version) VALUES (?1, ?2)
		ON CONFLICT (key) DO UPDATE SET version = excluded.version`,
}

// statements are the prepared queries of one pool; the read pool has no
// writing ones.
type statements [numQueries]*sql.Stmt

func prepare(ctx context.Context, db *sql.DB, writes bool) (statements, error) {
	var s statements
	for q := range numQueries {
		if q >= putAny && !writes {
			break
		}
		var err error
		if s[q], err = db.PrepareContext(ctx, text[q]); err != nil {
			return statements{}, err
		}
	}
	return s, nil
}

// bind gives the transaction's own view of the statements.
func bind(ctx context.Context, t *sql.Tx, s statements) func(query) *sql.Stmt {
	var own statements
	return func(q query) *sql.Stmt {
		if own[q] == nil {
			own[q] = t.StmtContext(ctx, s[q])
		}
		return own[q]
	}
}

// tx carries the context of the View or Update that it lives in, and no longer.
type tx struct {
	ctx      context.Context
	now      func() time.Time
	bound    func(query) *sql.Stmt
	readOnly bool
	// broken is the first error of the engine itself. SQLite may have undone
	// the transaction by then, so it must not commit even if the caller's
	// function shrugs the error off.
	broken error
}

func (t *tx) fail(verb string, err error) error {
	err = fmt.Errorf("sqlite: %s: %w", verb, err)
	if t.broken == nil {
		t.broken = err
	}
	return err
}

func (t *tx) Get(key string) (store.Record, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Record{}, err
	}
	r := store.Record{Key: key}
	var modified int64
	err := t.bound(get).QueryRowContext(t.ctx, []byte(key)).Scan(&r.Version, &modified, &r.Value)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, t.fail("get", err)
	}
	r.Modified = time.UnixMicro(modified).UTC()
	return r, nil
}

func (t *tx) List(prefix, after string, limit int) ([]store.Record, error) {
	if limit < 1 {
		return nil, store.ErrLimit
	}
	q, args := listFrom, []any{[]byte(prefix), []byte(after), limit}
	if end := successor(prefix); end != nil {
		q, args = list, []any{[]byte(prefix), []byte(after), end, limit}
	}
	rows, err := t.bound(q).QueryContext(t.ctx, args...)
	if err != nil {
		return nil, t.fail("list", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has the error that matters
	var out []store.Record
	for rows.Next() {
		var r store.Record
		var key []byte
		var modified int64
		if err := rows.Scan(&key, &r.Version, &modified, &r.Value); err != nil {
			return nil, t.fail("list", err)
		}
		r.Key, r.Modified = string(key), time.UnixMicro(modified).UTC()
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, t.fail("list", err)
	}
	return out, nil
}

// successor returns the first byte string after all those that start with
// prefix, or nil if there is none.
func successor(prefix string) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := []byte(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

func (t *tx) Put(key string, value []byte, want store.Version) (store.Version, error) {
	if t.readOnly {
		return 0, store.ErrReadOnly
	}
	if err := store.CheckKey(key); err != nil {
		return 0, err
	}
	if len(value) > store.MaxValue {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", store.ErrTooLarge, len(value), store.MaxValue)
	}
	if value == nil {
		value = []byte{} // the driver would make nil a NULL
	}
	args := []any{[]byte(key), t.now().UnixMicro(), value}
	q := putAny
	switch {
	case want == store.Absent:
		q = putAbsent
	case want > 0:
		q, args = putAt, append(args, int64(want))
	case want != store.Any:
		return 0, store.ErrConflict // no record ever has such a version
	}
	var v store.Version
	err := t.bound(q).QueryRowContext(t.ctx, args...).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, store.ErrConflict
	}
	if err != nil {
		return 0, t.fail("put", err)
	}
	return v, nil
}

func (t *tx) Delete(key string, want store.Version) error {
	if t.readOnly {
		return store.ErrReadOnly
	}
	if err := store.CheckKey(key); err != nil {
		return err
	}
	var last int64
	err := t.bound(remove).QueryRowContext(t.ctx, []byte(key), int64(want)).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		if _, err := t.Get(key); err != nil {
			return err // ErrNotFound, or the engine's own trouble
		}
		return store.ErrConflict
	}
	if err != nil {
		return t.fail("delete", err)
	}
	if _, err := t.bound(bury).ExecContext(t.ctx, []byte(key), last); err != nil {
		return t.fail("delete", err)
	}
	return nil
}
