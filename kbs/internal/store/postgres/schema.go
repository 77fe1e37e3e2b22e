package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// step leads from one schema to the next. kbs_schema counts those taken, and a
// released step is never edited.
type step struct {
	what string // for people
	sql  string
}

// Keys are bytes, so that they sort as bytes, whatever the collation. Values
// are mostly ciphertext, which does not compress.
var steps = []step{
	{"records, floors of versions, the writers' lock", `
	CREATE TABLE kbs_records (
		key      bytea  PRIMARY KEY,
		version  bigint NOT NULL,
		modified bigint NOT NULL, -- microseconds since 1970, UTC
		expires  bigint NOT NULL, -- likewise; 0: never
		value    bytea  NOT NULL
	);
	ALTER TABLE kbs_records ALTER COLUMN value SET STORAGE EXTERNAL;
	CREATE INDEX kbs_expiring ON kbs_records (expires) WHERE expires > 0;
	CREATE TABLE kbs_floors (lane integer PRIMARY KEY, version bigint NOT NULL);
	CREATE TABLE kbs_writer (); -- never holds a row: who writes, locks it`},
}

// migrationLock keeps replicas that start together from creating the schema
// together ("VSKB").
const migrationLock = 0x56534b42

// PlanOf says what [Open] would change in the database. It changes nothing.
func PlanOf(ctx context.Context, dsn string) (store.Plan, error) {
	p := store.Plan{Engine: "PostgreSQL", Want: len(steps)}
	cfg, err := pgxpool.ParseConfig(dsn) // a pool's, which may have parameters of its own
	if err != nil {
		return p, fmt.Errorf("postgres: %w", err)
	}
	c, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return p, fmt.Errorf("postgres: %w", err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }() // it only read
	if p.Have, err = schemaOf(ctx, c); err != nil {
		return p, fmt.Errorf("postgres: %w", err)
	}
	for _, s := range steps[p.Have:] {
		p.Steps = append(p.Steps, s.what)
	}
	return p, nil
}

// migrate brings the schema up to date, or finds that it is.
func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	have, err := schemaOf(ctx, pool)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if have == len(steps) {
		return nil // without a right to change anything
	}
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0", pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrationLock); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, "CREATE TABLE IF NOT EXISTS kbs_schema (version integer NOT NULL)"); err != nil {
			return err
		}
		have, err := schemaOf(ctx, t) // another replica may have been faster
		if err != nil {
			return err
		}
		for i := have; i < len(steps); i++ {
			if _, err := t.Exec(ctx, steps[i].sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("schema %d: %w", i+1, err)
			}
		}
		if have == 0 {
			_, err = t.Exec(ctx, "INSERT INTO kbs_schema VALUES ($1)", len(steps))
		} else {
			_, err = t.Exec(ctx, "UPDATE kbs_schema SET version = $1", len(steps))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// schemaOf returns the schema version of the database, 0 if it is new. It
// refuses one that is newer than this program.
func schemaOf(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (int, error) {
	var there bool
	if err := db.QueryRow(ctx, "SELECT to_regclass('kbs_schema') IS NOT NULL").Scan(&there); err != nil || !there {
		return 0, err
	}
	var v int
	err := db.QueryRow(ctx, "SELECT version FROM kbs_schema").Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err == nil && v > len(steps) {
		err = fmt.Errorf("the database has schema %d, and this program knows schemas up to %d: it is older than the database", v, len(steps))
	}
	return v, err
}
