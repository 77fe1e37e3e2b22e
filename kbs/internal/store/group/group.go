// Package group is the half of an engine that all engines share: transactions
// take turns, each one's changes are kept apart in memory until it has
// succeeded, and those that succeeded share one durable commit.
//
// A commit waits for a disk, and a broker has many small transactions, so a
// batch of them pays for one wait. The turn is a channel, whose waiters are
// served in order. Who opened the batch gives the turn away after its function
// and queues for it again; when it comes back, everybody who had waited has run
// too, and it commits for all. A lone writer finds the turn free and commits at
// once. An engine whose commits cost more than they take has a pace: where the
// batch before had several members, the next one waits that long for company.
//
// Changes stay in memory (see overlay) because then one transaction is undone
// by forgetting it, and what the transactions of a batch read of each other
// costs no question to the database. The unit holds the database's write lock
// all the while, so that what was read stays true.
package group

import (
	"context"
	"errors"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Limits of a batch: who waits for its commit should not wait for ever, and
// its changes are in memory.
const (
	maxMembers = 256
	maxBytes   = 8 << 20
)

// Row is a record as a database keeps it. Times are in microseconds since
// 1970; one that never expires has 0.
type Row struct {
	Key      string
	Version  store.Version
	Modified int64
	Expires  int64
	Value    []byte // owned by the caller
}

// Due is an expired record.
type Due struct {
	Key     string
	Version store.Version
	Expires int64
}

// Reader is the reading half of a database transaction: one snapshot. Its
// errors are the database's trouble only.
type Reader interface {
	// Get reports false if the key is absent.
	Get(ctx context.Context, key string) (Row, bool, error)
	// Version is 0 if the key is absent.
	Version(ctx context.Context, key string) (store.Version, error)
	// List is that of store.Tx.
	List(ctx context.Context, prefix, after string, limit int) ([]Row, error)
	// Expired lists records that start with prefix and expire before the time
	// now, the oldest first.
	Expired(ctx context.Context, prefix string, now int64, limit int) ([]Due, error)
	// Floor returns the floor of a lane, 0 if it has none.
	Floor(ctx context.Context, lane Lane) (store.Version, error)
}

// Unit is a database transaction that excludes every other writer.
type Unit interface {
	Reader
	// Commit makes the changes durable, all or none, and ends the unit. An
	// error that wraps ErrRetry says: none, and it may go better next time.
	Commit(ctx context.Context, c Changes) error
	// Rollback ends the unit without a change. It has nothing to say to ctx,
	// as the batch may outlive whoever opened it.
	Rollback()
}

// ErrRetry marks an error of a unit after which nothing was changed and the
// transaction may run again.
var ErrRetry = errors.New("the transaction must run again")

// Config of a Queue.
type Config struct {
	Begin func(context.Context) (Unit, error)
	Now   func() time.Time
	// Again waits before a transaction that met ErrRetry runs for the
	// attempt'th time, 1 the first, or returns the error to give up with. A nil
	// Again gives up at once.
	Again func(ctx context.Context, attempt int, err error) error
	// Pace is the time between two commits under load. The unit is held open
	// meanwhile, so it is nothing for a database that others write to; 0: none.
	Pace time.Duration
	// Timeout bounds what one batch asks of the database, so that a silent
	// network does not hold the turn; 0: no bound.
	Timeout time.Duration
}

// Queue runs the writing transactions of one engine.
type Queue struct {
	cfg    Config
	turn   chan struct{} // full while somebody has the turn
	closed chan struct{}
	// What follows belongs to who has the turn.
	open *batch
	next time.Time // before which a batch waits for company
}

// New returns a queue.
func New(cfg Config) *Queue {
	return &Queue{cfg: cfg, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// batch is a unit and the changes of its members so far. Whenever nobody has
// the turn, an open batch holds changes, and the first of those who made them
// comes back to commit.
type batch struct {
	unit    Unit
	ctx     context.Context // of all members, so of none: no guest that hangs up cuts off the others
	cancel  context.CancelFunc
	changes overlay
	floors  Floors // as the database has them: each is asked for once
	members int
	wait    time.Time     // before which it is not committed, if it has room
	done    chan struct{} // closed when err is final
	err     error
}

// Update is that of store.Store.
func (q *Queue) Update(ctx context.Context, f func(store.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := q.try(ctx, f)
		if err == nil || !errors.Is(err, ErrRetry) || q.cfg.Again == nil {
			return err
		}
		if err := q.cfg.Again(ctx, attempt, err); err != nil {
			return err
		}
	}
}

// take waits for the turn.
func (q *Queue) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case q.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-q.closed:
		return store.ErrClosed
	}
}

func (q *Queue) try(ctx context.Context, f func(store.Tx) error) error {
	if err := q.take(ctx); err != nil {
		return err
	}
	b, first, err := q.run(ctx, f)
	if b == nil {
		return err
	}
	if first {
		q.finish(b)
	}
	<-b.done // also a function that refused waits: what it saw may still get lost
	if b.err != nil {
		return b.err
	}
	return err
}

// finish commits a batch, after it has waited for company where that pays.
func (q *Queue) finish(b *batch) {
	if wait := time.Until(b.wait); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-b.done:
			return
		case <-timer.C:
		}
	}
	select {
	case <-b.done:
	case q.turn <- struct{}{}:
		if q.open == b {
			q.commit()
		}
		<-q.turn
	}
}

// run has the turn and gives it back. It returns the batch whose commit the
// caller has to wait for, nil if there is none, and whether the caller is its
// first member, who has to finish it.
func (q *Queue) run(ctx context.Context, f func(store.Tx) error) (_ *batch, first bool, err error) {
	defer func() { <-q.turn }()
	if q.open == nil {
		if err := q.begin(ctx); err != nil {
			return nil, false, err
		}
	}
	b := q.open
	t := &tx{ctx: ctx, db: b.unit, dbctx: b.ctx, now: q.cfg.Now, base: &b.changes, floors: b.floors}
	defer func() {
		t.over = true
		if t.broken != nil {
			q.fail(t.broken)
		} else if q.open == b && b.changes.empty() { // nobody waits for anything
			q.fail(nil)
		}
	}()
	err = f(t)
	if err == nil {
		err = ctx.Err()
	}
	if t.broken != nil {
		return b, false, nil
	}
	if err == nil {
		b.changes.merge(&t.own)
	}
	if b.changes.empty() {
		return nil, false, err
	}
	if b.members++; b.members >= maxMembers || b.changes.bytes >= maxBytes {
		q.commit()
	}
	return b, b.members == 1, err
}

func (q *Queue) begin(ctx context.Context) error {
	unit, err := q.cfg.Begin(ctx)
	if err != nil {
		return err
	}
	b := &batch{unit: unit, wait: q.next, floors: Floors{}, done: make(chan struct{}), ctx: context.WithoutCancel(ctx), cancel: func() {}}
	if q.cfg.Timeout > 0 {
		b.ctx, b.cancel = context.WithTimeout(b.ctx, q.cfg.Timeout)
	}
	q.open = b
	return nil
}

// commit ends the open batch well, if the database lets it.
func (q *Queue) commit() {
	b := q.open
	q.open = nil
	b.err = b.unit.Commit(b.ctx, b.changes.flat())
	if q.next = (time.Time{}); b.members > 1 && q.cfg.Pace > 0 {
		q.next = time.Now().Add(q.cfg.Pace)
	}
	b.cancel()
	close(b.done)
}

// fail ends the open batch without a change.
func (q *Queue) fail(err error) {
	b := q.open
	q.open = nil
	b.unit.Rollback()
	b.err = err
	b.cancel()
	close(b.done)
}

// Alone runs f with a unit of its own, which f commits or rolls back. Other
// writers wait for it.
func (q *Queue) Alone(ctx context.Context, f func(Unit) error) error {
	if err := q.take(ctx); err != nil {
		return err
	}
	defer func() { <-q.turn }()
	if q.open != nil {
		q.commit()
	}
	unit, err := q.cfg.Begin(ctx)
	if err != nil {
		return err
	}
	return f(unit)
}

// Close waits for those who have the turn, commits for them and admits nobody
// any more.
func (q *Queue) Close() {
	select {
	case <-q.closed:
		return
	case q.turn <- struct{}{}:
	}
	if q.open != nil {
		q.commit()
	}
	close(q.closed) // and the turn is never given back
}

// View runs f on the snapshot of r. The trouble of r goes before what f made
// of it.
func View(ctx, dbctx context.Context, r Reader, f func(store.Tx) error) error {
	t := &tx{ctx: ctx, db: r, dbctx: dbctx, readOnly: true}
	defer func() { t.over = true }()
	if err := f(t); t.broken == nil {
		return err
	}
	return t.broken
}
