package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records in the unscoped store. The generation's version moves with every
// change of any tenant, so that a replica finds out with one read.
const (
	keyGeneration = "tenant/generation"
	prefixRecord  = "tenant/record/"
)

// MaxTenants bounds the tenants of one broker: each replica knows all records.
const MaxTenants = 10_000

// fresh is for how long a replica believes its snapshot.
const fresh = time.Second

// ErrUnknown says that there is no such tenant, or that it is suspended: who
// asks for it must not learn which.
var ErrUnknown = errors.New("tenant: no such tenant")

// Record describes one tenant.
type Record struct {
	Name      string    `json:"name"`
	Hosts     []string  `json:"hosts,omitempty"` // requests to these host names are for it
	Suspended bool      `json:"suspended,omitempty"`
	CreatedBy string    `json:"created_by,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	// Version is that of the stored record; 0 for the tenant Default as long as
	// nobody said anything about it.
	Version store.Version `json:"-"`
}

// snapshot is all that one replica knows, and when it last compared it.
type snapshot struct {
	generation store.Version
	compared   time.Time
	byName     map[string]Record
	byHost     map[string]string
}

// Registry knows the tenants. It is safe for concurrent use.
type Registry struct {
	st  store.Store
	now func() time.Time

	mu   sync.Mutex // held by who refreshes
	snap atomic.Pointer[snapshot]
}

// Open returns the tenants in st, which is not a scope.
func Open(st store.Store, now func() time.Time) *Registry { return &Registry{st: st, now: now} }

// Lookup returns an active tenant, else ErrUnknown.
func (r *Registry) Lookup(ctx context.Context, name string) (Record, error) {
	s, err := r.current(ctx)
	if err != nil {
		return Record{}, err
	}
	rec, ok := s.byName[name]
	if !ok || rec.Suspended {
		return Record{}, ErrUnknown
	}
	return rec, nil
}

// OfHost returns the tenant that the host of a request names, whether it is
// active or not; "" if it names none. A port and a trailing dot do not count.
func (r *Registry) OfHost(ctx context.Context, host string) (string, error) {
	s, err := r.current(ctx)
	if err != nil || len(s.byHost) == 0 {
		return "", err
	}
	return s.byHost[hostName(host)], nil
}

func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// current returns a snapshot that is not older than fresh.
func (r *Registry) current(ctx context.Context) (*snapshot, error) {
	if s := r.snap.Load(); s != nil && r.now().Sub(s.compared) < fresh {
		return s, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.snap.Load()
	if old != nil && r.now().Sub(old.compared) < fresh {
		return old, nil // somebody was faster
	}
	return r.refresh(ctx, old)
}

func (r *Registry) refresh(ctx context.Context, old *snapshot) (*snapshot, error) {
	next := &snapshot{compared: r.now()}
	err := r.st.View(ctx, func(tx store.Tx) error {
		g, err := tx.Get(keyGeneration)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		next.generation = g.Version
		if old != nil && old.generation == g.Version {
			next.byName, next.byHost = old.byName, old.byHost
			return nil
		}
		return next.read(tx)
	})
	if err != nil {
		return nil, fmt.Errorf("tenants: %w", err)
	}
	r.snap.Store(next)
	return next, nil
}

// read fills the snapshot.
func (s *snapshot) read(tx store.Tx) error {
	s.byName, s.byHost = map[string]Record{Default: {Name: Default}}, map[string]string{}
	all, err := tx.List(prefixRecord, "", MaxTenants+1)
	if err != nil {
		return err
	}
	for _, raw := range all {
		rec, err := decode(raw)
		if err != nil {
			return err
		}
		s.byName[rec.Name] = rec
		for _, h := range rec.Hosts {
			s.byHost[h] = rec.Name
		}
	}
	return nil
}

func decode(r store.Record) (Record, error) {
	var rec Record
	if err := json.Unmarshal(r.Value, &rec); err != nil {
		return Record{}, fmt.Errorf("the record %s is damaged: %w", r.Key, err)
	}
	rec.Version = r.Version
	return rec, nil
}
