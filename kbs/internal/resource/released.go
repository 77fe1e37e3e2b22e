package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// released is how often and when last a resource went out. It is for people:
// nothing is decided by it, and a crash loses the last seconds.
type released struct {
	Count int64     `json:"count"`
	Last  time.Time `json:"last"`
}

func addReleased(tx store.Tx, info *api.ResourceInfo) error {
	r, err := tx.Get(prefixReleased + info.Path)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var n released
	if err := json.Unmarshal(r.Value, &n); err != nil {
		return nil //nolint:nilerr // a damaged counter must not hide the resource
	}
	info.Released, info.LastReleased = n.Count, n.Last
	return nil
}

// Times and sizes of the counting.
const (
	flushEvery  = 5 * time.Second
	flushWithin = 10 * time.Second
	maxCounted  = 4096 // paths that are kept in memory
	flushBatch  = 256  // paths of one transaction
)

// Releases counts what goes out, of all tenants, and writes it down now and
// then: never on the way of a release.
type Releases struct {
	now func() time.Time

	mu     sync.Mutex
	seen   map[counted]released
	stores map[string]store.Store // by tenant
	full   chan struct{}          // seen has grown large
}

type counted struct{ tenant, path string }

// NewReleases returns an empty count.
func NewReleases(now func() time.Time) *Releases {
	return &Releases{now: now, seen: map[counted]released{}, stores: map[string]store.Store{}, full: make(chan struct{}, 1)}
}

// Add counts one release of a tenant's resource that is in st. Beyond a bound it counts
// only what it knows already: a flood of paths must not fill the memory.
func (r *Releases) Add(tenant string, st store.Store, p Path) {
	k := counted{tenant, p.String()}
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.seen[k]
	if !ok && len(r.seen) >= maxCounted {
		return
	}
	r.stores[tenant] = st
	r.seen[k] = released{n.Count + 1, r.now().UTC().Truncate(time.Second)}
	if len(r.seen) >= maxCounted/2 {
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// Run writes the counts down until ctx ends, and then once more.
func (r *Releases) Run(ctx context.Context) {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWithin)
			defer cancel()
			_ = r.Flush(last)
			return
		case <-t.C:
		case <-r.full:
		}
		_ = r.Flush(ctx) // what could not be written is counted again
	}
}

// Flush writes all counts down.
func (r *Releases) Flush(ctx context.Context) error {
	r.mu.Lock()
	seen, stores := r.seen, r.stores
	r.seen, r.stores = map[counted]released{}, map[string]store.Store{}
	r.mu.Unlock()

	byTenant := map[string]map[string]released{}
	for k, n := range seen {
		if byTenant[k.tenant] == nil {
			byTenant[k.tenant] = map[string]released{}
		}
		byTenant[k.tenant][k.path] = n
	}
	var all []error
	for tenant, counts := range byTenant {
		all = append(all, r.flush(ctx, tenant, stores[tenant], counts))
	}
	return errors.Join(all...)
}

func (r *Releases) flush(ctx context.Context, tenant string, st store.Store, counts map[string]released) error {
	batch := make(map[string]released, flushBatch)
	write := func() error {
		defer clear(batch)
		if len(batch) == 0 {
			return nil
		}
		err := st.Update(ctx, func(tx store.Tx) error { return addCounts(tx, batch) })
		if err != nil {
			r.restore(tenant, st, batch)
			return fmt.Errorf("resource: count releases: %w", err)
		}
		return nil
	}
	var all []error
	for path, n := range counts {
		if batch[path] = n; len(batch) == flushBatch {
			all = append(all, write())
		}
	}
	return errors.Join(append(all, write())...)
}

// addCounts does not bring back what was deleted meanwhile.
func addCounts(tx store.Tx, batch map[string]released) error {
	for path, n := range batch {
		if _, err := tx.Get(prefixHead + path); errors.Is(err, store.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		info := api.ResourceInfo{Path: path}
		if err := addReleased(tx, &info); err != nil {
			return err
		}
		raw, err := json.Marshal(released{info.Released + n.Count, n.Last})
		if err != nil {
			return err
		}
		if _, err := tx.Put(prefixReleased+path, raw, store.Any); err != nil {
			return err
		}
	}
	return nil
}

func (r *Releases) restore(tenant string, st store.Store, batch map[string]released) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stores[tenant] = st
	for path, n := range batch {
		k := counted{tenant, path}
		have, ok := r.seen[k]
		if !ok && len(r.seen) >= maxCounted {
			continue
		}
		if have.Last.After(n.Last) {
			n.Last = have.Last
		}
		r.seen[k] = released{have.Count + n.Count, n.Last}
	}
}
