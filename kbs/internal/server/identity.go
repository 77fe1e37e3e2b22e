package server

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// adminHandler is a handler behind an admin credential.
type adminHandler func(w http.ResponseWriter, r *http.Request, who admin.Identity) error

// adminError is why an administrator was turned away, in the words that the
// field's tests look for (kbs-protocol 2.4). They are the same for every
// defect of a credential.
type adminError struct{ text string }

// Error returns the constant text.
func (e *adminError) Error() string { return e.text }

var (
	errNoAdmin = &adminError{"Cannot verify token with any of the issuers"}
	errNoRole  = &adminError{"Role not allowed for path"}
)

// as lets a request through if its bearer has at least the given role. Routes
// carry method and parsed path, so the role is decided on both.
func (s *Server) as(least admin.Role, h adminHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		who, err := s.Admins.Authenticate(r.Header.Get("Authorization"))
		if err != nil {
			s.Logger.WarnContext(r.Context(), "admin credential refused", slog.String("route", r.Pattern), slog.Any("reason", err))
			if err := limit.Fail(r.Context()); err != nil {
				return err
			}
			return fault.New(fault.Unauthenticated, errNoAdmin)
		}
		if rec, ok := w.(*recorder); ok {
			rec.admin = true
		}
		if !who.Role.Includes(least) {
			return s.refuseRole(r, who, least)
		}
		return h(w, r, who)
	}
}

func (s *Server) refuseRole(r *http.Request, who admin.Identity, least admin.Role) error {
	object := r.Method + " " + clip(r.URL.Path, maxObject)
	t, err := s.Tickets.Record(context.WithoutCancel(r.Context()), api.Explanation{
		Code: string(fault.Forbidden), Stage: string(opAdmin), Subject: who.String(), Object: object,
		Cause: "role " + string(who.Role) + " is not " + string(least),
	}, api.AuditEntry{Kind: api.AuditAdmin, Decision: "deny"})
	if err != nil {
		return fault.Newf(fault.Internal, "record refusal: %w", err)
	}
	return fault.New(fault.Forbidden, errNoRole).With(t)
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
