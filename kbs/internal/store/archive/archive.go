// Package archive is a whole store as a stream of bytes, the same for every
// engine: a backup of one can be restored into another.
//
// The stream begins with a magic number and the version of the format. Frames
// follow, each a letter, a length (uint32) and that many bytes; numbers are
// big-endian, times in microseconds since 1970:
//
//	H  created (int64), name of the program          once
//	F  lane (uint16), version (int64)                lanes ascending
//	R  version, modified, expires (int64), length of the key (uint16), key, value
//	                                                 keys ascending
//	E  number of F and of R (uint64), SHA-256 of all bytes before this frame
//
// There is one way to write one store, and a reader takes no other. The sum
// finds damage, not malice: who can write to a backup can change policies in
// it, as who can write to the store can. What is sealed in the store is sealed
// here, and opens only under the master key, which is not here.
package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// ErrDamaged says that a stream is cut, altered, or no archive at all.
var ErrDamaged = errors.New("archive: damaged, or not a backup")

// ErrNotEmpty says that a store which should be filled holds something.
var ErrNotEmpty = errors.New("archive: the store is not empty")

const (
	magic   = "VSKBDUMP"
	version = 1

	maxProgram = 255 // bytes
	sumSize    = 32
)

// Header says where an archive comes from.
type Header struct {
	Created time.Time
	Program string // name and version, at most 255 bytes
}

// Counts of what an archive holds.
type Counts struct {
	Floors, Records int64
	Bytes           int64 // of the whole stream
}

// Item is a record, or else the floor of a lane.
type Item struct {
	Row     *group.Row
	Lane    group.Lane
	Version store.Version
}

// Store is what an engine offers for archives.
type Store interface {
	// Export hands out one snapshot of the store: floors by lane, then records
	// by key. Writers do not wait for it.
	Export(ctx context.Context, emit func(Item) error) error
	// Import fills an empty store with what next returns until io.EOF, in one
	// transaction. With replace, what is there goes before; without, it is
	// ErrNotEmpty. Floors come before records.
	Import(ctx context.Context, replace bool, next func() (Item, error)) error
}

// Of returns what st offers for archives.
func Of(st store.Store) (Store, error) {
	a, ok := st.(Store)
	if !ok {
		return nil, fmt.Errorf("archive: %T cannot be archived", st)
	}
	return a, nil
}
