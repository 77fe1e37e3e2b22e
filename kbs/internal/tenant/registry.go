package tenant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/snapshot"
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

// ErrUnknown says that there is no such tenant, or that it is suspended: who
// asks for it must not learn which.
var ErrUnknown = errors.New("tenant: no such tenant")

// directory is what all records say.
type directory struct {
	byName map[string]Record
	byHost map[string]string
}

// Registry knows the tenants. It is safe for concurrent use.
type Registry struct {
	known *snapshot.Set[directory]
	now   func() time.Time
}

// Open returns the tenants in st, which is not a scope.
func Open(st store.Store, now func() time.Time) *Registry {
	return &Registry{snapshot.New(st, keyGeneration, now, read), now}
}

// Lookup returns an active tenant, else ErrUnknown.
func (r *Registry) Lookup(ctx context.Context, name string) (Record, error) {
	rec, err := r.Get(ctx, name)
	if err == nil && rec.State != api.TenantActive {
		return Record{}, ErrUnknown
	}
	return rec, err
}

// Get returns a tenant whatever its state, else ErrUnknown.
func (r *Registry) Get(ctx context.Context, name string) (Record, error) {
	d, err := r.known.Get(ctx)
	if err != nil {
		return Record{}, fmt.Errorf("tenants: %w", err)
	}
	rec, ok := d.byName[name]
	if !ok {
		return Record{}, ErrUnknown
	}
	return rec, nil
}

// List returns all tenants in the order of their names.
func (r *Registry) List(ctx context.Context) ([]Record, error) {
	d, err := r.known.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("tenants: %w", err)
	}
	return slices.SortedFunc(maps.Values(d.byName), func(a, b Record) int { return strings.Compare(a.Name, b.Name) }), nil
}

// OfHost returns the tenant that the host of a request names, whether it is
// active or not; "" if it names none. A port and a trailing dot do not count.
func (r *Registry) OfHost(ctx context.Context, host string) (string, error) {
	d, err := r.known.Get(ctx)
	if err != nil {
		return "", fmt.Errorf("tenants: %w", err)
	}
	if len(d.byHost) == 0 {
		return "", nil
	}
	return d.byHost[hostName(host)], nil
}

func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func read(tx store.Tx) (directory, error) {
	d := directory{map[string]Record{Default: {api.Tenant{Name: Default, State: api.TenantActive}}}, map[string]string{}}
	all, err := tx.List(prefixRecord, "", MaxTenants)
	if err != nil {
		return d, err
	}
	for _, raw := range all {
		rec, err := decode(raw)
		if err != nil {
			return d, err
		}
		d.byName[rec.Name] = rec
		for _, h := range rec.Hosts {
			d.byHost[h] = rec.Name
		}
	}
	return d, nil
}
