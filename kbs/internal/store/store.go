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
	"time"
)

// Errors that engines return, wrapped or bare.
var (
	// ErrNotFound says that there is no record under the key.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict says that the record is not at the version the writer saw.
	ErrConflict = errors.New("store: version conflict")
	// ErrReadOnly says that a View transaction tried to write.
	ErrReadOnly = errors.New("store: read-only transaction")
)

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

// Tx is one transaction: serialisable, all or nothing.
type Tx interface {
	// Get returns ErrNotFound if the key is absent.
	Get(key string) (Record, error)
	// List returns records whose keys start with prefix and sort after the key
	// `after` ("" for the first), in byte order, at most limit of them.
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
type Store interface {
	View(ctx context.Context, f func(Tx) error) error
	Update(ctx context.Context, f func(Tx) error) error
	Close() error
}
