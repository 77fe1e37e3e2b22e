package resource

import (
	"context"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Backend is where values are. Reading is all that every one can do; what else
// it does is in its traits, and in the interfaces that follow. The contract is
// executable: see package backendtest.
type Backend interface {
	Traits() Traits
	// Get returns the value at a path, the newest one for version 0, and what is
	// known of it. It returns store.ErrNotFound for an absent path or version,
	// and ErrUnsupported for a version where there are none. Whether the value
	// may be released is not its business.
	Get(ctx context.Context, p Path, version int64) (Item, error)
}

// Traits say what a back end does beyond Get. What it cannot do it refuses
// with ErrUnsupported, and never does by halves.
type Traits struct {
	Changes  bool // it is a Changer: put and delete
	Lists    bool // it is a Lister
	Versions bool // it keeps former values; it can roll back and destroy them
	Metadata bool // it keeps an api.ResourceMeta
	Compares bool // it honours Change.Want
}

// Item is a value with its description. The caller owns the value. A back end
// without metadata fills in path, version (0 if it has none) and size.
type Item struct {
	Value secret.Bytes
	Info  api.ResourceInfo
}

// Op is a kind of change.
type Op int

// The changes.
const (
	OpPut      Op = iota + 1 // store Value; Meta, unless nil, replaces what is said about it
	OpMeta                   // replace what is said about it by Meta
	OpRollback               // store the value of Version again
	OpDestroy                // wipe the value of Version, which is not the newest
	OpDelete                 // remove the resource with all its versions
)

// Change is one change of one resource.
type Change struct {
	Op      Op
	Path    Path
	Want    int64 // the version that was seen: store.Absent, store.Any or a number; else store.ErrConflict
	Author  string
	Value   secret.Bytes
	Meta    *api.ResourceMeta
	Version int64
}

// Changer is a back end that can be written to.
type Changer interface {
	// Apply makes the change and returns the resource as it is then, for
	// OpDelete as it was. Changing what is absent is store.ErrNotFound, except
	// for OpPut.
	Apply(ctx context.Context, c Change) (api.ResourceInfo, error)
}

// Transactional is a Changer that keeps its values in the broker's store, so
// that a change can be made durable together with its audit entry.
type Transactional interface {
	// Run prepares the change, which may take time, and calls in, which runs the
	// commit within a transaction. If another change or the rotation of a master
	// key came between the two, it does both again.
	Run(ctx context.Context, c Change, in func(Commit) error) error
}

// Commit makes a prepared change within a transaction. It may run more than
// once.
type Commit func(tx store.Tx) (api.ResourceInfo, error)

// Lister is a back end that can tell what it has.
type Lister interface {
	// Describe returns store.ErrNotFound for an absent path.
	Describe(ctx context.Context, p Path) (api.ResourceInfo, error)
	// List returns descriptions in byte order of their paths.
	List(ctx context.Context, q Query) (Page, error)
}

// Query selects resources. Zero members select all.
type Query struct {
	Prefix  string // of the path
	After   string // paths that sort after this one
	Limit   int    // at most this many, at least 1
	Owner   string
	Labels  map[string]string
	Expires time.Time // those that expire before
}

// Page is a part of a list.
type Page struct {
	Items []api.ResourceInfo
	// Next is the path to go on after; "" if nothing follows. The cost of a
	// page is bounded, so a page may be short, or empty, and have a Next.
	Next string
}

// keeps reports whether an item is among those that q selects.
func (q Query) keeps(r api.ResourceInfo) bool {
	if q.Owner != "" && q.Owner != r.Owner {
		return false
	}
	for k, v := range q.Labels {
		if have, ok := r.Labels[k]; !ok || have != v {
			return false
		}
	}
	return q.Expires.IsZero() || (!r.Expires.IsZero() && r.Expires.Before(q.Expires))
}
