package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// applicationID marks the file as ours in its header ("VSKB").
const applicationID = 0x56534b42

// steps lead from one schema to the next; user_version counts those taken. A
// released step is never edited.
//
// A tombstone keeps the last version of a deleted key, so that a writer who
// saw the old record cannot take a new one for it.
var steps = []string{
	`CREATE TABLE records (
		key      BLOB NOT NULL UNIQUE,
		version  INTEGER NOT NULL,
		modified INTEGER NOT NULL, -- microseconds since 1970, UTC
		value    BLOB NOT NULL
	) STRICT;
	CREATE TABLE tombstones (
		key     BLOB NOT NULL PRIMARY KEY,
		version INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;`,
}

// errForeign says that the file belongs to another application.
var errForeign = errors.New("the file is a database of another application")

func migrate(ctx context.Context, db *sql.DB) error {
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
	if have > len(steps) {
		return fmt.Errorf("the file has schema %d, and this program knows schemas up to %d: it is older than the file", have, len(steps))
	}
	for i := have; i < len(steps); i++ {
		if _, err := t.ExecContext(ctx, steps[i]); err != nil {
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

// schemaOf returns the schema version of the file, 0 if it is new.
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
	return user, nil
}
