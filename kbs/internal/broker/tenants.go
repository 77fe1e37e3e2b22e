package broker

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// tenants finds the rooms of each tenant, and implements [server.Tenants].
type tenants struct {
	registry *tenant.Registry
	pool     *tenant.Pool[*rooms]
}

func newTenants(s *shared) *tenants {
	return &tenants{s.system.Tenants, tenant.NewPool(s.cfg.Tenants.Ready, s.rooms)}
}

func (t *tenants) rooms(ctx context.Context, name string) (*rooms, error) {
	rec, err := t.registry.Lookup(ctx, name)
	if errors.Is(err, tenant.ErrUnknown) {
		return nil, server.ErrNoTenant
	}
	if err != nil {
		return nil, err
	}
	return t.pool.Get(ctx, rec)
}

// Handlers implements [server.Tenants].
func (t *tenants) Handlers(ctx context.Context, name string) (server.Handlers, error) {
	r, err := t.rooms(ctx, name)
	if err != nil {
		return server.Handlers{}, err
	}
	return r.handlers, nil
}

// OfHost implements [server.Tenants].
func (t *tenants) OfHost(ctx context.Context, host string) (string, error) {
	return t.registry.OfHost(ctx, host)
}
