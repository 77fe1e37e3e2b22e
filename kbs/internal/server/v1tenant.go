package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// System is what belongs to the broker as a whole.
type System struct {
	Tenants *tenant.Registry
	// Usage tells how much of its quotas a tenant uses.
	Usage func(ctx context.Context, name string) (api.TenantUsage, error)
}

func (s *Server) listTenants(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.System.Tenants.List(r.Context())
	if err != nil {
		return err
	}
	out := make([]api.Tenant, len(all))
	for i := range all {
		out[i] = all[i].Tenant
	}
	s.answerJSON(w, http.StatusOK, typeJSON, listed(out))
	return nil
}

func (s *Server) getTenant(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	rec, err := s.System.Tenants.Get(r.Context(), r.PathValue("tenant"))
	if err != nil {
		return err
	}
	u, err := s.System.Usage(r.Context(), rec.Name)
	if err != nil {
		return err
	}
	rec.Usage = &u
	s.answerTenant(w, rec)
	return nil
}

func (s *Server) answerTenant(w http.ResponseWriter, rec tenant.Record) {
	tag(w, rec.Version)
	s.answerJSON(w, http.StatusOK, typeJSON, rec.Tenant)
}

func (s *Server) putTenant(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var rec tenant.Record
	err := exactBody(r, &rec.Tenant)
	if err != nil {
		return err
	}
	name := r.PathValue("tenant")
	if rec.Name != "" && rec.Name != name {
		return fault.Newf(fault.InvalidRequest, "the body names another tenant than the path")
	}
	if rec.Version, err = seen(r, rec.Version); err != nil {
		return err
	}
	rec.Name, rec.Author = name, who.String()
	stored, err := s.System.Tenants.Put(r.Context(), rec, s.tenantEntry(who, api.AuditTenantPut))
	if err != nil {
		return err
	}
	s.answerTenant(w, stored)
	return nil
}

// deleteTenant destroys a suspended tenant whose name the caller repeats. From
// its first record on there is no way back: a deletion that was cut short goes
// on when it is asked for again.
func (s *Server) deleteTenant(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	name := r.PathValue("tenant")
	if r.URL.Query().Get("confirm") != name {
		return fault.Newf(fault.InvalidRequest, "to destroy all records of %s, confirm with its name", clip(name, maxClaim))
	}
	want, err := seen(r, int64(store.Any))
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context()) // half a deletion helps nobody
	_, err = s.System.Tenants.Condemn(ctx, name, want, s.tenantEntry(who, api.AuditTenantCondemn))
	if errors.Is(err, tenant.ErrInUse) {
		return fault.New(fault.Conflict, err)
	}
	if err != nil {
		return err
	}
	if err := s.System.Tenants.Destroy(ctx, name, s.tenantEntry(who, api.AuditTenantDelete)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) tenantEntry(who admin.Identity, kind api.AuditKind) tenant.Change {
	return func(tx store.Tx, rec tenant.Record) error {
		_, err := s.Audit.AppendTx(tx, api.AuditEntry{
			Kind: kind, Decision: "change", Subject: who.String(), Object: "tenant/" + rec.Name,
			Details: map[string]string{"state": rec.State},
		})
		return err
	}
}
