// Package sqlite is the store engine inside the broker's own binary: one file,
// no server, no C. It is the default wherever one machine is enough.
//
// The file is in WAL mode with synchronous=FULL, so that a write is on disk
// before Update returns. All writes go through one connection, whose
// transactions begin IMMEDIATE: a writer never finds out half way that
// another was faster. Reads use a pool of connections that cannot write, and
// each View sees one snapshot. A second process may open the same file; it
// waits for the write lock up to the busy timeout.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	driver "modernc.org/sqlite"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// busyTimeout bounds the wait for another process that holds the write lock.
const busyTimeout = 10 * time.Second

// Open opens the database file, and creates it with mode 0600 where it is
// absent. It refuses a file whose schema is newer than this program, or which
// is some other application's.
func Open(path string) (store.Store, error) {
	return open(path, time.Now)
}

func open(path string, now func() time.Time) (store.Store, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := private(abs); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	e := &engine{now: now}
	if err := e.start(abs); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), e.Close())
	}
	return e, nil
}

// private makes sure that nobody but the owner can read the file. SQLite gives
// its side files the same mode. An existing file is never opened here: closing
// any descriptor of it would drop the locks that this process holds on it.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return os.Chmod(path, 0o600)
	}
	return nil
}

type engine struct {
	now         func() time.Time
	write, read *sql.DB
	writing     statements
	reading     statements
}

func (e *engine) start(path string) error {
	var err error
	if e.write, err = connect(path, false, 1); err != nil {
		return err
	}
	ctx := context.Background()
	if err := migrate(ctx, e.write); err != nil {
		return err
	}
	if e.writing, err = prepare(ctx, e.write, true); err != nil {
		return err
	}
	if e.read, err = connect(path, true, max(4, runtime.NumCPU())); err != nil {
		return err
	}
	e.reading, err = prepare(ctx, e.read, false)
	return err
}

func connect(path string, readOnly bool, conns int) (*sql.DB, error) {
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"temp_store(MEMORY)", // what a query spills never reaches the disk
		"journal_size_limit(67108864)",
		"trusted_schema(OFF)",
	}, "_defensive": {"1"}, "_txlock": {"immediate"}}
	if readOnly {
		q.Set("_query_only", "1")
		q.Set("_txlock", "deferred")
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	c, err := driver.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close waits for running transactions and closes the file.
func (e *engine) Close() error {
	var errs []error
	for _, db := range []*sql.DB{e.read, e.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// View runs f on one snapshot, taken at its first read.
func (e *engine) View(ctx context.Context, f func(store.Tx) error) error {
	t, err := e.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = t.Rollback() }() // nothing to undo; also after a panic
	x := &tx{ctx: ctx, now: e.now, bound: bind(ctx, t, e.reading), readOnly: true}
	if err := f(x); err != nil {
		return err
	}
	return x.broken
}

// Update runs f alone among writers and commits. Other processes that write to
// the file can make it wait up to the busy timeout.
func (e *engine) Update(ctx context.Context, f func(store.Tx) error) error {
	t, err := e.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = t.Rollback() }() // no effect after Commit; runs after a panic
	x := &tx{ctx: ctx, now: e.now, bound: bind(ctx, t, e.writing)}
	if err := f(x); err != nil {
		return err
	}
	if x.broken != nil {
		return x.broken
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("sqlite: commit: %w", err)
	}
	return nil
}
