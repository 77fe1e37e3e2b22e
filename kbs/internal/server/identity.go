package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// adminHandler is a handler behind an admin credential.
type adminHandler func(w http.ResponseWriter, r *http.Request, who admin.Identity) error

// Admins says who an administrator is and what they may do.
type Admins interface {
	// Authenticate returns an error that wraps admin.ErrUnauthenticated or
	// admin.ErrDenyAll for who is not let in; any other means that nobody knows.
	Authenticate(ctx context.Context, authorization string) (admin.Identity, error)
	Permits(who admin.Identity, c admin.Call) bool
	// Concerns reports whether an identity has any business with a tenant.
	Concerns(who admin.Identity, tenant string) bool
}

// adminError is why an administrator was turned away, in the words that the
// field's tests look for (kbs-protocol 2.4). They are the same for every
// defect of a credential but one: whoever has a genuine token that lives too
// long must be able to find out.
type adminError struct{ text string }

// Error returns the text.
func (e *adminError) Error() string { return e.text }

// adminAccess is the text of the field for an administrator who was turned
// away from one of its endpoints.
func adminAccess(r *http.Request, e *adminError) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, api.PathPrefix+"/"), "/")
	return "admin access denied for endpoint " + clip(name, maxClaim) + ": " + e.text
}

// as lets a request through if its bearer may make the call. Routes carry
// method and parsed path, so the role is decided on both.
func (s *Server) as(route Route, h adminHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		who, err := s.authenticate(r)
		if err != nil {
			return err
		}
		if rec, ok := w.(*recorder); ok {
			rec.admin = true
		}
		call := admin.Call{Tenant: s.Tenant, Need: admin.Role(route.Access), Method: r.Method, URI: r.URL.RequestURI()}
		if route.System {
			call.Tenant = admin.AnyTenant
		}
		if route.Access != Known && !s.Admins.Permits(who, call) {
			return s.refuseRole(r, who, call)
		}
		if waits, err := s.waits(r, route); err != nil {
			return err
		} else if waits {
			return s.ask(w, r, route, who)
		}
		if err := s.unchanged(r, route); err != nil {
			return err
		}
		return h(w, r, who)
	}
}

// authenticate returns the administrator behind a request. An administrator of
// other tenants is a stranger here.
func (s *Server) authenticate(r *http.Request) (admin.Identity, error) {
	who, err := s.Admins.Authenticate(r.Context(), r.Header.Get("Authorization"))
	if err == nil && !s.Admins.Concerns(who, s.Tenant) {
		err = fmt.Errorf("%w: %s is no administrator of this tenant", admin.ErrUnauthenticated, who)
	}
	if err == nil {
		return who, nil
	}
	s.Logger.WarnContext(r.Context(), "admin credential refused", slog.String("route", r.Pattern), slog.Any("reason", err))
	if err := limit.Fail(r.Context()); err != nil {
		return who, err
	}
	switch {
	case errors.Is(err, admin.ErrDenyAll):
		return who, fault.New(fault.Forbidden, &adminError{admin.ErrDenyAll.Error()})
	case errors.Is(err, admin.ErrLifetime):
		return who, fault.New(fault.Unauthenticated, &adminError{admin.ErrUnauthenticated.Error() + ": " + admin.ErrLifetime.Error()})
	case errors.Is(err, admin.ErrUnauthenticated):
		return who, fault.New(fault.Unauthenticated, &adminError{admin.ErrUnauthenticated.Error()})
	}
	return who, fault.New(fault.Unavailable, err)
}

func (s *Server) refuseRole(r *http.Request, who admin.Identity, c admin.Call) error {
	cause := "role " + who.RoleNames() + " is not " + string(c.Need)
	if c.Tenant != s.Tenant {
		cause += " of the whole broker"
	}

	object := r.Method + " " + clip(r.URL.Path, maxObject)
	t, err := s.Tickets.Record(context.WithoutCancel(r.Context()), api.Explanation{
		Code: string(fault.Forbidden), Stage: string(opAdmin), Subject: who.String(), Object: object,
		Cause: cause,
	}, api.AuditEntry{Kind: api.AuditAdmin, Decision: "deny"})
	if err != nil {
		return fault.Newf(fault.Internal, "record refusal: %w", err)
	}
	return fault.New(fault.Forbidden, &adminError{"Role " + who.RoleNames() + " not allowed for path"}).With(t)
}

// change makes a change and appends its audit entry in one transaction.
func (s *Server) change(ctx context.Context, who admin.Identity, e api.AuditEntry, do func(tx store.Tx) error) error {
	return s.changeEntry(ctx, who, func(tx store.Tx) (api.AuditEntry, error) { return e, do(tx) })
}

// changeEntry is change where the entry tells what came of it.
func (s *Server) changeEntry(ctx context.Context, who admin.Identity, do func(tx store.Tx) (api.AuditEntry, error)) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		e, err := do(tx)
		if err != nil {
			return err
		}
		e.Decision, e.Subject = "change", who.String()
		if _, err := s.Audit.AppendTx(tx, e); err != nil {
			return fault.Newf(fault.Internal, "append audit entry: %w", err)
		}
		return nil
	})
}

// changeElsewhere is for a back end whose values are not in the broker's
// store. The entry comes first: an entry without its change is followed by one
// that says so, and a change without its entry cannot be.
func (s *Server) changeElsewhere(ctx context.Context, who admin.Identity, e api.AuditEntry, do func() error) error {
	e.Decision, e.Subject = "change", who.String()
	if _, err := s.Audit.Append(ctx, e); err != nil {
		return fault.Newf(fault.Internal, "append audit entry: %w", err)
	}
	err := do()
	if err == nil {
		return nil
	}
	f := known(err)
	e.Decision, e.Code = "error", string(f.Code)
	if _, aerr := s.Audit.Append(context.WithoutCancel(ctx), e); aerr != nil {
		return fault.Newf(fault.Internal, "append audit entry: %w", aerr)
	}
	return f
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
