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
	// ErrLimit says that List was asked for no records at all.
	ErrLimit = errors.New("store: limit must be at least 1")
)

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

// Version counts the writes to one key, starting at 1. A deleted key starts
// again above every version it ever had.
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
	// It returns the new version.
	Put(key string, value []byte, want Version) (Version, error)
	// Delete removes the record if it is at version want, else ErrConflict; an
	// absent key is ErrNotFound.
	Delete(key string, want Version) error
}

// Store is an engine. Update may call its function more than once when the
// engine has to retry, so the function must have no effect outside the
// transaction until Update has returned nil; then the change is durable.
//
// An error or a panic in the function undoes the transaction. The function
// must not call Update of the same store: an engine may admit one writer at a
// time and would wait for itself until ctx ends.
type Store interface {
	// View runs f on one snapshot of the store.
	View(ctx context.Context, f func(Tx) error) error
	Update(ctx context.Context, f func(Tx) error) error
	Close() error
}
