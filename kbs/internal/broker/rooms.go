package broker

import (
	"context"
	"log/slog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/approval"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/revocation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
)

// rooms are what belongs to one tenant. They are dropped when the tenant has
// not been asked for in a while, so they hold nothing that must be closed.
type rooms struct {
	deps     server.Deps
	handlers server.Handlers
	refusals *limit.Book
}

// rooms opens the rooms of one tenant over its scope of the store, in the
// order of their needs.
func (s *shared) rooms(ctx context.Context, rec tenant.Record) (*rooms, error) {
	quotas := rec.Quotas
	if rec.Name != tenant.Default { // which has no limits that nobody set
		quotas = s.cfg.Tenants.Of(quotas)
	}
	st := tenant.Scope(tenant.Meter(s.store, rec.Name, quotas), rec.Name)
	log := audit.ForTenant(audit.Guard(s.audit, s.sinks.Behind), rec.Name)
	// What is wrapped for this tenant opens for no other.
	wrap := tenant.Wrapper(s.kek, rec.Name)
	ring := keyring.Open(st, wrap)
	logger := s.Logger
	if rec.Name != tenant.Default {
		logger = logger.With(slog.String("tenant", rec.Name))
	}
	resources, err := s.resources(rec.Name, st, wrap)
	if err != nil {
		return nil, err
	}
	tokens, err := s.openTokens(ctx, rec.Name, st, ring, log)
	if err != nil {
		return nil, err
	}
	refs := refvalue.Open(st, s.Now)
	docs, engine := s.policies(st, refs)
	plugins, err := s.pluginsOf(rec.Name, ring, log, logger)
	if err != nil {
		return nil, err
	}
	tickets := limit.NewBook(ticket.Open(st, log, s.cfg.TicketRetention(), s.Now), log)
	if err := docs.InstallDefaults(ctx, installed(log)); err != nil {
		return nil, err
	}
	revoked := revocation.Open(st, s.cfg.TokenLifetime(), s.Now)
	ac := attestation.Config{
		Revoked: revoked,
		Store:   st, Audit: log, Tickets: tickets, Challenges: challenge.NewSealer(ring, rec.Name, s.Now),
		Registry: s.verifiers, Versions: s.cfg.AttestationService.Versions(), Selectors: s.cfg.AttestationService.AttestationPolicySelectors,
		Policies: engine, Issuer: tokens.issuer, Lifetime: s.cfg.SessionLifetime(), Now: s.Now, Logger: logger, Gate: s.gate,
		Tokens: tokens.verifier, VerboseTokens: s.cfg.AttestationService.AttestationTokenBroker.VerboseToken,
	}
	r := &rooms{refusals: tickets, deps: server.Deps{
		Tenant: rec.Name, Since: rec.Created,
		Issuer: tokens.issuer, Tokens: tokens.verifier, TokenKeys: tokens.keys, Engine: engine, Policies: docs, Resources: resources, RefValues: refs, Plugins: plugins,
		Tickets: tickets, Audit: log, AuditLog: s.audit, Confirmed: s.sinks.Confirmed, Admins: s.admins, Revoked: s.revoked, Guests: revoked, Leases: lease.Open(st, s.Now), Store: st,
		Now: s.Now, Logger: logger, MaxBody: s.cfg.MaxBody(), SecureCookie: !s.cfg.HTTPServer.InsecureHTTP,
		InsecureProtocol01: s.cfg.AttestationService.InsecureProtocol01, Compat401: s.cfg.HTTPServer.Compat401,
		Operations: s.serving(),
	}}
	r.deps.Approvals = &server.Approvals{Book: approval.Open(st, ring, s.cfg.Admin.ApprovalLifetime(), s.Now), Marks: rec.Marks}
	r.deps.Quotas = server.Quotas{Sessions: tenant.NewRate(quotas.Sessions, s.Now), Releases: tenant.NewRate(quotas.Releases, s.Now)}
	r.deps.Released = func(p resource.Path) { s.releases.Add(rec.Name, st, p) }
	if rec.Name == tenant.Default {
		r.deps.System = s.system
		r.deps.MasterKeys = &server.MasterKeys{Set: s.kek, Walker: s.walker}
	}
	if s.remote != nil && rec.Name == tenant.Default { // other tenants trust nobody's tokens: see openTokens
		ac.Remote, r.deps.Remote = s.remote, s.remote
	}
	r.deps.Handshake = attestation.New(ac)
	r.handlers = server.New(r.deps).Handlers()
	return r, nil
}
