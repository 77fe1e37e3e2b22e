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
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// AuditLog is what administrators read of the log.
type AuditLog interface {
	Entries(ctx context.Context, from int64, limit int) ([]json.RawMessage, error)
	Checkpoint(ctx context.Context) ([]byte, error)
	Inclusion(ctx context.Context, index, size int64) ([][]byte, error)
	Consistency(ctx context.Context, older, newer int64) ([][]byte, error)
}

// RefValues is a registrar whose changes can be audited in one transaction.
type RefValues interface {
	refvalue.Registrar
	refvalue.Transactional
}

// Deps are the rooms behind the server. All are required.
type Deps struct {
	Tenant    string // whose rooms these are
	Handshake *attestation.Service
	Issuer    *token.Issuer
	Engine    *policy.Engine
	Policies  *policy.Documents
	Resources resource.Backend
	RefValues RefValues
	Tickets   ticket.Book
	Audit     audit.Recorder
	AuditLog  AuditLog
	AuditKey  string // verifier key of the log
	Admins    *admin.Authenticator
	Store     store.Store
	Now       func() time.Time
	Logger    *slog.Logger
	MaxBody   int64 // bytes
	// SecureCookie marks the session cookie for TLS only. Without TLS it must
	// be off, or the field's clients lose their session.
	SecureCookie bool
}

// Server makes the handlers. It is safe for concurrent use.
type Server struct{ Deps }

// New returns a server over its rooms.
func New(d Deps) *Server { return &Server{d} }

// Guest returns the handler of the guests' listener.
func (s *Server) Guest() http.Handler {
	mux := http.NewServeMux()
	s.routeHealth(mux)
	s.routeHandshake(mux)
	s.routeV0(mux)
	mux.Handle("POST "+api.PathGuestRefusals, s.v1(s.guestRefusal))
	return s.wrap(mux)
}

// Admin returns the handler of the administrators' listener.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	s.routeHealth(mux)
	s.routeV0(mux)
	s.routeV1(mux)
	return s.wrap(mux)
}

// routeHandshake serves what only guests do.
func (s *Server) routeHandshake(mux *http.ServeMux) {
	mux.Handle("POST "+api.PathAuth, s.v0(opAuth, s.auth))
	mux.Handle("POST "+api.PathAttest, s.v0(opAttest, s.attest))
	mux.Handle("GET "+api.PathResource+"/{repo}/{type}/{tag}", s.v0(opRelease, s.getResource))
}

// routeV0 serves the admin calls of the field's protocol (kbs-protocol 7).
func (s *Server) routeV0(mux *http.ServeMux) {
	v0 := func(pattern string, least admin.Role, h adminHandler) {
		mux.Handle(pattern, s.v0(opAdmin, s.as(least, h)))
	}
	v0("POST "+api.PathResource+"/{repo}/{type}/{tag}", admin.Operator, s.v0PutResource)
	v0("DELETE "+api.PathResource+"/{repo}/{type}/{tag}", admin.Operator, s.v0DeleteResource)
	v0("POST "+api.PathReferenceValue, admin.Operator, s.v0PutReferenceValue)
	v0("GET "+api.PathReferenceValue+"/{name...}", admin.Viewer, s.v0GetReferenceValue)
	v0("POST "+api.PathResourcePolicy, admin.Owner, s.v0PutResourcePolicy)
	v0("GET "+api.PathResourcePolicy, admin.Viewer, s.v0ListResourcePolicies)
	v0("POST "+api.PathAttestationPolicy, admin.Owner, s.v0PutAttestationPolicy)
	mux.Handle(api.PathPrefix+"/", s.v0(opRelease, unknownPlugin))
}

// routeV1 serves our own API: who may call what is all here.
func (s *Server) routeV1(mux *http.ServeMux) {
	v1 := func(pattern string, least admin.Role, h adminHandler) {
		mux.Handle(pattern, s.v1(s.as(least, h)))
	}
	v1("GET "+api.PathPolicies, admin.Viewer, s.listPolicies)
	v1("GET "+api.PathPolicies+"/{kind}/{id}", admin.Viewer, s.getPolicy)
	v1("PUT "+api.PathPolicies+"/{kind}/{id}", admin.Owner, s.putPolicy)
	v1("DELETE "+api.PathPolicies+"/{kind}/{id}", admin.Owner, s.deletePolicy)
	v1("GET "+api.PathRefValues, admin.Viewer, s.listRefValues)
	v1("GET "+api.PathRefValues+"/{name...}", admin.Viewer, s.getRefValue)
	v1("PUT "+api.PathRefValues+"/{name...}", admin.Operator, s.putRefValue)
	v1("DELETE "+api.PathRefValues+"/{name...}", admin.Operator, s.deleteRefValue)
	v1("GET "+api.PathResources, admin.Viewer, s.listResources)
	v1("PUT "+api.PathResources+"/{repo}/{type}/{tag}", admin.Operator, s.putResource)
	v1("DELETE "+api.PathResources+"/{repo}/{type}/{tag}", admin.Operator, s.deleteResource)
	v1("GET "+api.PathTickets, admin.Viewer, s.listTickets)
	v1("GET "+api.PathTickets+"/{ticket}", admin.Viewer, s.getTicket)
	v1("GET "+api.PathAudit+"/entries", admin.Viewer, s.auditEntries)
	v1("GET "+api.PathAudit+"/checkpoint", admin.Viewer, s.auditCheckpoint)
	v1("GET "+api.PathAudit+"/key", admin.Viewer, s.auditKey)
	v1("GET "+api.PathAudit+"/inclusion", admin.Viewer, s.auditInclusion)
	v1("GET "+api.PathAudit+"/consistency", admin.Viewer, s.auditConsistency)
}
