// Package store is the broker's one place for state: versioned records under
// slash-separated keys, read and changed in transactions.
//
// Every other package keeps its records here, so that a replica of the broker
// can die at any moment and another can go on. The contract is executable:
// see package storetest, which each engine passes.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Errors that engines return, wrapped or bare.
var (
	// ErrNotFound says that there is no record under the key.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict says that the record is not at the version the writer saw.
	ErrConflict = errors.New("store: version conflict")
	// ErrReadOnly says that a View transaction tried to write.
	ErrReadOnly = errors.New("store: read-only transaction")
	// ErrKey says that a key is outside the limits of [CheckKey].
	ErrKey = errors.New("store: key must be 1 to 1024 bytes of UTF-8 without NUL")
	// ErrTooLarge says that a value is longer than [MaxValue].
	ErrTooLarge = errors.New("store: value is too large")
	// ErrLimit says that a call was asked for no records at all.
	ErrLimit = errors.New("store: limit must be at least 1")
	// ErrUnavailable says that the engine cannot serve now: its database is
	// gone, full or locked. See [Unavailable].
	ErrUnavailable = errors.New("store: unavailable")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
)

// Unavailable marks err as trouble that passes. The result is a fault with the
// public code fault.Unavailable, so that no caller has to translate it, and it
// wraps both [ErrUnavailable] and err.
func Unavailable(err error) error {
	return fault.New(fault.Unavailable, fmt.Errorf("%w: %w", ErrUnavailable, err))
}

// Limits that every engine enforces, in bytes.
const (
	MaxKey   = 1 << 10
	MaxValue = 16 << 20
)

// CheckKey returns an error that wraps [ErrKey] if no engine would take the key.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey || !utf8.ValidString(key) {
		return fmt.Errorf("%w: got %d bytes", ErrKey, len(key))
	}
	for i := range len(key) {
		if key[i] == 0 {
			return fmt.Errorf("%w: NUL at byte %d", ErrKey, i)
		}
	}
	return nil
}

// Version counts the writes to one key. A key that was never deleted starts at
// 1, or above: a new record starts higher than every version that a deleted
// record of its key ever had, and engines remember that bound for many keys
// together, so that a deleted key costs nothing.
type Version int64

// Wanted versions for Put and Delete.
const (
	Any    Version = -1 // whatever is there
	Absent Version = 0  // nothing must be there
)

// Record is one stored value.
type Record struct {
	Key      string
	Version  Version
	Modified time.Time // UTC
	Expires  time.Time // UTC; zero: never
	Value    []byte    // owned by the caller
}

// Tx is one transaction: serialisable, all or nothing. It belongs to the
// goroutine that runs the function of View or Update, and is dead once that
// function has returned.
//
// A refused write (ErrConflict, ErrNotFound, ErrKey, ErrTooLarge) changes
// nothing and leaves the transaction usable.
type Tx interface {
	// Get returns ErrNotFound if the key is absent.
	Get(key string) (Record, error)
	// List returns records whose keys start with prefix and sort after the key
	// `after` ("" for the first), in byte order, at most limit of them. A limit
	// below 1 is ErrLimit.
	List(prefix, after string, limit int) ([]Record, error)
	// Put writes the value if the record is at version want, else ErrConflict.
	// It returns the new version. The record never expires, whatever it did
	// before.
	Put(key string, value []byte, want Version) (Version, error)
	// PutUntil is Put of a record that may be deleted after the time until. It
	// stays readable until somebody sweeps: who must not see an expired record
	// compares the time.
	PutUntil(key string, value []byte, want Version, until time.Time) (Version, error)
	// Delete removes the record if it is at version want, else ErrConflict; an
	// absent key is ErrNotFound.
	Delete(key string, want Version) error
	// DeleteExpired deletes records whose keys start with prefix and whose time
	// came before now, the oldest first, at most limit of them, without
	// reading their values. It returns how many. A limit below 1 is ErrLimit.
	DeleteExpired(prefix string, now time.Time, limit int) (int, error)
}

// Store is an engine. Update may call its function more than once when the
// engine has to retry, so the function must have no effect outside the
// transaction until Update has returned nil; then the change is durable. View
// may do so too.
//
// An error or a panic in the function undoes the transaction and no other's.
// An error of the engine (ErrUnavailable above all) may leave it open whether
// the change was made, never half of it. The function must not call Update of
// the same store: an engine admits one writer at a time and would wait for
// itself until ctx ends. Nor should it wait for anything else, as other
// writers wait for it. Readers never wait for writers.
type Store interface {
	// View runs f on one snapshot of the store.
	View(ctx context.Context, f func(Tx) error) error
	Update(ctx context.Context, f func(Tx) error) error
	Close() error
}

// sweepBatch is how many expired records one transaction deletes.
const sweepBatch = 500

// Sweep deletes every record of st whose time came before now, in small
// transactions, and returns how many there were.
func Sweep(ctx context.Context, st Store, now time.Time) (int, error) {
	for all := 0; ; {
		n := 0
		err := st.Update(ctx, func(tx Tx) (err error) {
			n, err = tx.DeleteExpired("", now, sweepBatch)
			return err
		})
		if err != nil {
			return all, err
		}
		if all += n; n < sweepBatch {
			return all, nil
		}
	}
}

// Plan is what a program would change in the schema of a database.
type Plan struct {
	Engine     string   // for people
	Have, Want int      // versions of the schema; 0: there is no store yet
	Steps      []string // from Have to Want, for people
}

// Pending reports whether there is a store that has to change.
func (p Plan) Pending() bool { return p.Have > 0 && p.Have < p.Want }
