// Package server is the broker's HTTP face: /kbs/v0 as the field speaks it and
// our own /v1 (kbs-protocol 2, api).
//
// Guests and administrators have listeners of their own. What is not meant for
// guests is not merely refused on their listener, it is not there; the admin
// calls of /kbs/v0 are the exception, because the field's client sends them to
// the one address that it knows.
//
// Handlers return errors. One adapter for each of the two protocols turns them
// into bodies that show a code and a ticket and nothing else.
package server

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/health"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/revocation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// AuditLog is what administrators read of the log.
type AuditLog interface {
	Query(ctx context.Context, f audit.Filter, from int64, limit int) (audit.Page, error)
	Checkpoint(ctx context.Context) ([]byte, error)
	Inclusion(ctx context.Context, index, size int64) ([][]byte, error)
	Consistency(ctx context.Context, older, newer int64) ([][]byte, error)
	Keys(ctx context.Context) (api.AuditKeys, error)
	RotateKey(ctx context.Context, current string, e api.AuditEntry) (api.AuditKeys, error)
	Archived(ctx context.Context) (audit.Archived, error)
	Archive(ctx context.Context, size int64, root tlog.Hash, confirmed int64, e api.AuditEntry) (audit.Archived, error)
}

// RefValues are the reference values, the documents that bring them and who
// may sign those. Every change can be audited in its transaction.
type RefValues interface {
	refvalue.Registrar
	refvalue.Transactional
	Page(ctx context.Context, prefix, after string, limit int) ([]api.RefValue, error)
	Judge(ctx context.Context, document []byte, reason string) (refvalue.Imported, error)
	RegisterTx(tx store.Tx, i refvalue.Imported, author string, want store.Version) (api.RefSet, error)
	WithdrawTx(tx store.Tx, id string, want store.Version) error
	RefSet(ctx context.Context, id string) (api.RefSet, error)
	RefSets(ctx context.Context, after string, limit int) ([]api.RefSet, error)
	Signer(ctx context.Context, name string) (api.Signer, error)
	Signers(ctx context.Context) ([]api.Signer, error)
	PutSignerTx(tx store.Tx, s api.Signer) (api.Signer, error)
	DeleteSignerTx(tx store.Tx, name string, want store.Version) error
	Flush(ctx context.Context) error
}

// Deps are the rooms behind the server. All are required.
type Deps struct {
	Tenant    string    // whose rooms these are
	Since     time.Time // when the tenant was created
	Handshake *attestation.Service
	Issuer    *token.Issuer
	Tokens    *token.Verifier
	TokenKeys *token.Keys
	Engine    *policy.Engine
	Policies  *policy.Documents
	Resources *resource.Mounts
	RefValues RefValues
	Tickets   ticket.Book
	Audit     audit.Recorder
	AuditLog  AuditLog
	Confirmed func() int64 // the first entry that a sink has not confirmed; nil without sinks
	Admins    Admins
	Revoked   *admin.Revocations
	Guests    *revocation.List
	Leases    *lease.Book
	System    *System // only for the tenant "default"
	Quotas    Quotas
	Approvals *Approvals
	Store     store.Store
	Now       func() time.Time
	Logger    *slog.Logger
	MaxBody   int64 // bytes
	// Released counts a release; nil counts none.
	Released func(resource.Path)
	// MasterKeys is nil for every tenant but the broker's own.
	MasterKeys *MasterKeys
	// SecureCookie marks the session cookie for TLS only. Without TLS it must
	// be off, or the field's clients lose their session.
	SecureCookie bool
	// InsecureProtocol01 answers guests of protocol 0.1 in their form.
	InsecureProtocol01 bool
	// Compat401 gives refusals the status that the field's broker gives them.
	Compat401 bool
	// Plugins are served beside the resources, each under its name.
	Plugins map[string]plugin.Plugin
	// Remote judges evidence in place of this broker; nil: it does not.
	Remote Remote

	Operations
}

// Operations are what all tenants' servers share with the broker's operator.
type Operations struct {
	Watcher      observe.Watcher // nil watches nothing
	Guard        *limit.Guard
	Explaining   *limit.Gate // where explanations of denied releases wait for their turn
	BodyRate     int         // bytes a second that a body must arrive with
	Probes       *health.Probes
	Metrics      http.Handler // answers scrapes
	GuestMetrics bool         // serve them to guests too
}

// Server makes the handlers. It is safe for concurrent use.
type Server struct {
	Deps
	document func() []byte // OpenAPI
	readers  readers       // of the audit log
	wanted   *int64        // the version that an approved change is about
}

// New returns a server over its rooms.
func New(d Deps) *Server { return &Server{Deps: d, document: sync.OnceValue(Document)} }

// Names of the listeners, as logs, metrics and the document show them.
const (
	nameGuests  = "guests"
	nameAdmins  = "admins"
	nameMetrics = "metrics"
)

// Guest returns the handler of the guests' listener.
func (s *Server) Guest() http.Handler {
	mux := s.mount(Routes(), OnGuest)
	if s.GuestMetrics {
		for _, r := range metricsRoutes() {
			mux.Handle(r.Pattern, s.endpoint(r))
		}
	}
	return s.around(nameGuests, mux)
}

// Admin returns the handler of the administrators' listener.
func (s *Server) Admin() http.Handler { return s.around(nameAdmins, s.mount(Routes(), OnAdmin)) }

// Operator returns the handler of the listener for probes and metrics. It
// speaks for the whole broker, not for a tenant.
func (s *Server) Operator() http.Handler { return s.around(nameMetrics, s.mount(Routes(), OnMetrics)) }
