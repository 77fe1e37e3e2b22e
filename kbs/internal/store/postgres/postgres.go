// Package postgres is the store engine for more than one broker: replicas that
// share a PostgreSQL database share all their state.
//
// The audit log is one chain, so every writing transaction of every replica
// changes the same record, and optimistic transactions would mostly fail and
// start again. Writers therefore take turns: within a replica by package
// group, which puts those that wait into one database transaction, and among
// replicas by a lock on an empty table, taken as the first statement. The lock
// queue is fair, a replica that dies loses the lock with its connection, and
// one that hangs loses it to idle_in_transaction_session_timeout. Transactions
// are SERIALIZABLE all the same: whoever writes to the tables without the lock
// makes one of us start again, and corrupts nothing.
//
// A View is one REPEATABLE READ snapshot. Since writers are serial, that is a
// point in their order.
package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// Bounds on what a transaction waits for. The server's own are shorter than
// ours, so that it answers before we give up on it.
const (
	statementTimeout = 10 * time.Second
	lockTimeout      = 10 * time.Second // of other replicas' batches
	idleTimeout      = 10 * time.Second // of a replica that hangs with the lock
	clientTimeout    = 15 * time.Second
	connectTimeout   = 5 * time.Second
)

// Transactions that must run again do so after 5, 10, 20 … ms, each cut to a
// random part between half and all, and give up after these many.
const (
	attempts  = 8
	firstWait = 5 * time.Millisecond
)

// Options of an engine. The zero value is for everybody but tests.
type Options struct {
	Now    func() time.Time
	Random io.Reader
	// MaxConnections bounds those that read; one more writes. By default it is
	// what the DSN says, or four for each processor.
	MaxConnections int
}

// Open connects, and creates or migrates the schema. The data source name is
// a URL or a list of key=value, as [Secure] gave it.
func Open(ctx context.Context, dsn string, o Options) (store.Store, error) {
	e := &engine{random: o.Random}
	if e.random == nil {
		e.random = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e.writers = group.New(group.Config{Begin: e.begin, Now: o.Now, Again: e.again, Timeout: clientTimeout})
	if err := e.start(ctx, dsn, o.MaxConnections); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

type engine struct {
	random  io.Reader
	writers *group.Queue
	write   *pgxpool.Pool // one connection: views that wait for a writer must not starve it
	read    *pgxpool.Pool
	closed  atomic.Bool
}

func (e *engine) start(ctx context.Context, dsn string, readers int) error {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("postgres: %w", err) // pgx leaves the password out
	}
	for name, value := range map[string]string{
		"application_name":                    "vouchsafe-kbs",
		"statement_timeout":                   ms(statementTimeout),
		"lock_timeout":                        ms(lockTimeout),
		"idle_in_transaction_session_timeout": ms(idleTimeout),
		"synchronous_commit":                  "on", // an acknowledged write is on disk
	} {
		if _, given := cfg.ConnConfig.RuntimeParams[name]; !given {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	if cfg.ConnConfig.ConnectTimeout == 0 || cfg.ConnConfig.ConnectTimeout > connectTimeout {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	switch {
	case readers > 0:
		cfg.MaxConns = int32(readers)
	case !strings.Contains(dsn, "pool_max_conns"):
		cfg.MaxConns = int32(min(64, 4*runtime.NumCPU()))
	}
	if e.read, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	one := cfg.Copy()
	one.MaxConns, one.MinConns, one.MinIdleConns = 1, 0, 0
	if e.write, err = pgxpool.NewWithConfig(ctx, one); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return migrate(ctx, e.write)
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Close waits for running transactions and closes the connections.
func (e *engine) Close() error {
	e.closed.Store(true)
	e.writers.Close()
	for _, p := range []*pgxpool.Pool{e.read, e.write} {
		if p != nil {
			p.Close()
		}
	}
	return nil
}

// Update runs f alone among the writers of all replicas, and returns when its
// changes are on the server's disk.
func (e *engine) Update(ctx context.Context, f func(store.Tx) error) error {
	return e.writers.Update(ctx, f)
}

// View runs f on one snapshot, taken at its first read. It runs f again where
// a connection broke.
func (e *engine) View(ctx context.Context, f func(store.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := e.view(ctx, f)
		if err == nil || !errors.Is(err, group.ErrRetry) {
			return err
		}
		if err := e.again(ctx, attempt, err); err != nil {
			return err
		}
	}
}

func (e *engine) view(ctx context.Context, f func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.closed.Load() {
		return store.ErrClosed
	}
	c, err := e.read.Acquire(ctx)
	if err != nil {
		return beforeCommit(ctx, "connect", err)
	}
	// Not the caller's context: a guest that hangs up would cost a connection.
	dbctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clientTimeout)
	defer cancel()
	r := &snapshot{conn: conn{c.Conn()}}
	defer func() {
		r.end(dbctx)
		c.Release() // closes it if it broke, or is not idle
	}()
	return group.View(ctx, dbctx, r, f)
}

// again waits before another attempt, or says that there is none.
func (e *engine) again(ctx context.Context, attempt int, err error) error {
	if attempt >= attempts {
		return store.Unavailable(fmt.Errorf("gave up after %d attempts: %w", attempt, err))
	}
	return pause.For(ctx, e.jitter(firstWait<<(attempt-1)))
}

// jitter returns a random part of d, at least half of it, so that those who
// met once do not meet again.
func (e *engine) jitter(d time.Duration) time.Duration {
	var b [8]byte
	if _, err := io.ReadFull(e.random, b[:]); err != nil {
		return d
	}
	return d/2 + time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(d/2+1))
}

// begin takes the lock of all writers. Nothing has been read before it, so the
// snapshot is younger than the last writer's commit.
func (e *engine) begin(ctx context.Context) (group.Unit, error) {
	limited, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	c, err := e.write.Acquire(limited)
	if err != nil {
		return nil, beforeCommit(ctx, "connect", err)
	}
	const statements = "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE kbs_writer IN EXCLUSIVE MODE"
	if _, err := c.Exec(limited, statements, pgx.QueryExecModeSimpleProtocol); err != nil {
		(&unit{pooled: c}).Rollback()
		return nil, beforeCommit(ctx, "begin", err)
	}
	return &unit{conn: conn{c.Conn()}, pooled: c}, nil
}
