package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// applicationID marks the file as ours in its header ("VSKB").
const applicationID = 0x56534b42

// step leads from one schema to the next. user_version counts those taken, and
// a released step is never edited.
type step struct {
	what string // for people
	do   func(context.Context, *sql.Tx) error
}

var steps = []step{
	{"records and tombstones", run(`CREATE TABLE records (
		key      BLOB NOT NULL UNIQUE,
		version  INTEGER NOT NULL,
		modified INTEGER NOT NULL, -- microseconds since 1970, UTC
		value    BLOB NOT NULL
	) STRICT;
	CREATE TABLE tombstones (
		key     BLOB NOT NULL PRIMARY KEY,
		version INTEGER NOT NULL
	) STRICT, WITHOUT ROWID`)},
	{"a bound of versions for many deleted keys, where each had a tombstone", floorsForTombstones},
	{"records that expire", run(`ALTER TABLE records ADD COLUMN expires INTEGER NOT NULL DEFAULT 0; -- microseconds since 1970; 0: never
	CREATE INDEX expiring ON records (expires) WHERE expires > 0`)},
}

func run(statements string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, t *sql.Tx) error {
		_, err := t.ExecContext(ctx, statements)
		return err
	}
}

func floorsForTombstones(ctx context.Context, t *sql.Tx) error {
	floors, err := tombstones(ctx, t)
	if err != nil {
		return err
	}
	if err := run(`DROP TABLE tombstones; CREATE TABLE floors (lane INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT`)(ctx, t); err != nil {
		return err
	}
	for lane, v := range floors {
		if _, err := t.ExecContext(ctx, `INSERT INTO floors VALUES (?, ?)`, int64(lane), int64(v)); err != nil {
			return err
		}
	}
	return nil
}

func tombstones(ctx context.Context, t *sql.Tx) (group.Floors, error) {
	rows, err := t.QueryContext(ctx, `SELECT key, version FROM tombstones`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has the error that matters
	floors := group.Floors{}
	for rows.Next() {
		var key []byte
		var v store.Version
		if err := rows.Scan(&key, &v); err != nil {
			return nil, err
		}
		floors.Raise(string(key), v)
	}
	return floors, rows.Err()
}

// errForeign says that the file belongs to another application.
var errForeign = errors.New("the file is a database of another application")

// PlanOf says what [Open] would change in the file. It changes nothing.
func PlanOf(ctx context.Context, path string) (_ store.Plan, err error) {
	p := store.Plan{Engine: "SQLite " + path, Want: len(steps)}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return planned(p), nil
	} else if err != nil {
		return p, fmt.Errorf("sqlite: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return p, fmt.Errorf("sqlite: %w", err)
	}
	db, err := sql.Open("sqlite", source(path, true))
	if err != nil {
		return p, fmt.Errorf("sqlite: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return p, fmt.Errorf("sqlite: %w", err)
	}
	defer func() { _ = t.Rollback() }() // it only read
	if p.Have, err = schemaOf(ctx, t); err != nil {
		return p, fmt.Errorf("sqlite: %s: %w", path, err)
	}
	return planned(p), nil
}

func planned(p store.Plan) store.Plan {
	for _, s := range steps[min(p.Have, len(steps)):] {
		p.Steps = append(p.Steps, s.what)
	}
	return p
}

func migrate(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", source(path, false)+"&_txlock=immediate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system does not support WAL (journal mode is %s)", mode)
	}
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }()
	have, err := schemaOf(ctx, t)
	if err != nil {
		return err
	}
	for i := have; i < len(steps); i++ {
		if err := steps[i].do(ctx, t); err != nil {
			return fmt.Errorf("schema %d: %w", i+1, err)
		}
	}
	if have < len(steps) {
		set := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(steps))
		if _, err := t.ExecContext(ctx, set); err != nil {
			return err
		}
	}
	return t.Commit()
}

// schemaOf returns the schema version of the file, 0 if it is new. It refuses
// one that is newer than this program.
func schemaOf(ctx context.Context, t *sql.Tx) (int, error) {
	var app, user, tables int
	for query, to := range map[string]*int{
		"PRAGMA application_id":              &app,
		"PRAGMA user_version":                &user,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := t.QueryRowContext(ctx, query).Scan(to); err != nil {
			return 0, err
		}
	}
	fresh := app == 0 && user == 0 && tables == 0
	if !fresh && app != applicationID {
		return 0, errForeign
	}
	if user > len(steps) {
		return 0, fmt.Errorf("the file has schema %d, and this program knows schemas up to %d: it is older than the file", user, len(steps))
	}
	return user, nil
}
