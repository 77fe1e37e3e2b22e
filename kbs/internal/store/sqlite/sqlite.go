// Package sqlite is the store engine inside the broker's own binary: one file,
// no server, no C. It is the default wherever one machine is enough.
//
// The file is in WAL mode with synchronous=FULL, so that a write is on disk
// before Update returns. All writes go through one connection, whose
// transactions begin IMMEDIATE: a writer never finds out half way that
// another was faster. Writers that wait at the same time share a commit
// (package group). Reads use a pool of connections that cannot write, and each
// View sees one snapshot. A second process may open the same file; it waits
// for the write lock up to the busy timeout.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// busyTimeout bounds the wait for another process that holds the write lock.
const busyTimeout = 10 * time.Second

// pace is the time between two commits under load. One costs half a
// millisecond of CPU, whether for one transaction or for twenty.
const pace = 2 * time.Millisecond

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
	e := &engine{path: abs, readers: make(chan *conn, max(4, runtime.NumCPU()))}
	e.writers = group.New(group.Config{Begin: e.begin, Now: now, Pace: pace})
	if err := e.start(); err != nil {
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
	path    string
	writers *group.Queue
	writer  *conn // of who has the turn
	readers chan *conn
	open    int // readers there are, here or in use
	memory  *memory
	close   sync.Once
}

func (e *engine) start() error {
	ctx := context.Background()
	if err := migrate(ctx, e.path); err != nil {
		return err
	}
	var err error
	if e.writer, err = connect(ctx, e.path, false); err != nil {
		return err
	}
	index, err := openIndex(e.path)
	if err != nil {
		return err
	}
	e.memory = remember(index)
	for range cap(e.readers) {
		c, err := connect(ctx, e.path, true)
		if err != nil {
			return err
		}
		e.open++
		e.readers <- c
	}
	return nil
}

// Close waits for running transactions and closes the file.
func (e *engine) Close() error {
	var errs []error
	e.close.Do(func() {
		e.writers.Close()
		if e.memory != nil {
			e.memory.close()
		}
		for range e.open {
			errs = append(errs, (<-e.readers).Close())
		}
		close(e.readers)
		if e.writer != nil {
			errs = append(errs, e.writer.Close())
		}
		if e.memory != nil {
			errs = append(errs, e.memory.index.close(e.path))
		}
	})
	return errors.Join(errs...)
}

// snapshot runs f on a connection whose state stands still from its first read
// on.
func (e *engine) snapshot(ctx context.Context, f func(*conn) error) error {
	c, err := e.reader(ctx)
	if err != nil {
		return err
	}
	defer e.giveBack(c)
	return f(c)
}

// reader waits for a connection and begins a transaction on it.
func (e *engine) reader(ctx context.Context) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var c *conn
	select {
	case c = <-e.readers:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c == nil {
		return nil, store.ErrClosed
	}
	if err := c.exec(begin); err != nil {
		e.readers <- c
		return nil, unavailable("begin", err)
	}
	return c, nil
}

func (e *engine) giveBack(c *conn) {
	_ = c.exec(rollback) // it has changed nothing
	e.readers <- c
}

// Update runs f alone among writers, and returns when its changes are on disk.
func (e *engine) Update(ctx context.Context, f func(store.Tx) error) error {
	return e.writers.Update(ctx, f)
}

// begin takes the write lock. Other processes that write to the file can make
// it wait up to the busy timeout.
func (e *engine) begin(context.Context) (group.Unit, error) {
	if err := e.writer.exec(beginWrite); err != nil {
		return nil, unavailable("begin", err)
	}
	u := unit{conn: e.writer, memory: e.memory}
	u.era, u.commits = e.memory.resume()
	return u, nil
}
