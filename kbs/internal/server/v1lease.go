package server

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// recordRelease writes a release into the log before its answer leaves, and in
// the same transaction its lease, if that is not written down already. e lacks
// what is the same for all releases.
func (s *Server) recordRelease(ctx context.Context, c token.Claims, version int64, e api.AuditEntry) error {
	ctx, done := observe.Step(ctx, observe.StepRecord)
	e.Kind, e.Decision, e.Subject = api.AuditRelease, "allow", subject(c)
	known := read(c)
	both, full, err := s.Leases.Record(ctx, lease.Grant{
		Guest: known.guest, Platform: known.platform, TokenID: c.ID, Object: e.Object, Version: version, Until: c.Expires,
	}, func(tx store.Tx) error {
		_, err := s.Audit.AppendTx(tx, e)
		return err
	})
	if err == nil && !both {
		if full {
			e.Details["lease"] = "none: there are too many"
		}
		_, err = s.Audit.Append(ctx, e)
	}
	done(err)
	if err != nil {
		return fault.Newf(fault.Internal, "record a release: %w", err)
	}
	return nil
}

func (s *Server) listLeases(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	in := r.URL.Query()
	q := lease.Query{After: in.Get("after"), Object: in.Get("object"), Guest: in.Get("guest"), Claim: in.Get("claim")}
	state := api.LeaseState(in.Get("state"))
	switch {
	case state != "" && state != api.LeaseActive && state != api.LeaseEnded && state != api.LeaseRevoked:
		return fault.Newf(fault.InvalidRequest, "state is %s, %s or %s", api.LeaseActive, api.LeaseEnded, api.LeaseRevoked)
	case q.Claim != "" && !strings.Contains(q.Claim, "="):
		return fault.Newf(fault.InvalidRequest, "claim is PATH=VALUE")
	}
	all, next, err := s.Leases.Page(r.Context(), q)
	if err != nil {
		return err
	}
	out := api.LeasePage{Items: []api.Lease{}, Next: next}
	gone := map[string]string{}
	for _, l := range all {
		if err := s.judgeLease(r.Context(), &l, gone); err != nil {
			return err
		}
		if state == "" || l.State == state {
			out.Items = append(out.Items, l)
		}
	}
	s.answerJSON(w, http.StatusOK, typeJSON, out)
	return nil
}

func (s *Server) getLease(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	l, err := s.Leases.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.judgeLease(r.Context(), &l, map[string]string{}); err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, l)
	return nil
}

// judgeLease says what became of a lease. gone remembers what is known of
// objects: "" is that they are still given.
func (s *Server) judgeLease(ctx context.Context, l *api.Lease, gone map[string]string) error {
	revoked, err := s.Guests.Ends(ctx, *l)
	if err != nil {
		return err
	}
	why, asked := gone[l.Object]
	if !asked {
		why = s.objectGone(ctx, l.Object)
		gone[l.Object] = why
	}
	switch {
	case revoked != nil:
		l.State, l.Reason = api.LeaseRevoked, revoked.Error()
	case !s.Now().Before(l.Until):
		l.State, l.Reason = api.LeaseEnded, "the guest did not come back with another token"
	case why != "":
		l.State, l.Reason = api.LeaseEnded, why
	default:
		l.State = api.LeaseActive
	}
	return nil
}

// objectGone says why nobody is given an object any more; "" if that is not so,
// or cannot be told.
func (s *Server) objectGone(ctx context.Context, object string) string {
	text, ok := strings.CutPrefix(object, "resource/")
	path, err := resource.ParsePath(text)
	if !ok || err != nil {
		return ""
	}
	if m, err := s.Resources.At(path); err != nil || !m.Backend.Traits().Metadata {
		return "" // to ask a place elsewhere for each line of a list would take too long
	}
	info, err := s.Resources.Describe(ctx, path)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "the resource was deleted"
	case err == nil && !info.Expires.IsZero() && !s.Now().Before(info.Expires):
		return "the resource has expired"
	}
	return ""
}
