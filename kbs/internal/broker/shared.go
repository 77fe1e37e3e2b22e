package broker

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/sink"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/remoteas"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// shared are the rooms that all tenants have in common, with the clock and the
// log. What is not here belongs to one tenant: see rooms.
type shared struct {
	Options

	cfg config.Config
	operations
	store     store.Store // whole; tenants get scopes of it
	kek       *kek.Set    // what all else is sealed under
	walker    *kek.Walker
	ring      *keyring.Ring // the broker's own keys
	releases  *resource.Releases
	audit     *audit.Log // one chain
	sinks     *sink.Set  // where it is delivered to
	verifiers *measure.Registry
	host      *policy.Host // of every tenant's policy engine
	admins    *admin.Authenticator
	trust     *token.Trust // nil: the broker's own tokens only
	remote    *remoteas.Client
	revoked   *admin.Revocations
	system    *server.System
	foreign   map[string]resource.Backend // by the name that the configuration gives
	plugins   map[string]plugin.Plugin
	closers   []func() error
	// background runs while the broker serves, each until its context ends.
	background []func(context.Context)
}

// open opens the shared rooms over the store, in the order of their needs.
func (s *shared) open(ctx context.Context) (err error) {
	if s.kek, err = s.openKeys(ctx); err != nil {
		return err
	}
	s.ring = keyring.Open(s.store, s.kek)
	if err := s.openAudit(ctx); err != nil {
		return err
	}
	s.host = s.openHost()
	s.openWalker()
	if err := s.openBackends(); err != nil {
		return err
	}
	if err := s.openPlugins(ctx); err != nil {
		return err
	}
	s.releases = resource.NewReleases(s.Now)
	s.background = append(s.background, s.releases.Run)
	if s.trust, err = s.openTrust(ctx); err != nil {
		return err
	}
	if s.remote, err = s.openRemote(); err != nil {
		return err
	}
	s.system = &server.System{
		Tenants: tenant.Open(s.store, s.Now),
		Usage: func(ctx context.Context, name string) (api.TenantUsage, error) {
			return tenant.Usage(ctx, s.store, name)
		},
	}
	return s.openAdmin()
}
