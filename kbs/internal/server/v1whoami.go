package server

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func (s *Server) whoAmI(w http.ResponseWriter, _ *http.Request, who admin.Identity) error {
	out := api.WhoAmI{
		Name: who.String(), Issuer: who.Issuer, Subject: who.Subject, Tenant: s.Tenant, Roles: []api.AdminRole{}, Claim: who.Claim,
		TokenID: who.TokenID, Issued: who.Issued.UTC(), Expires: who.Expires.UTC(), Insecure: who.Expires.IsZero(),
	}
	for _, g := range who.Grants {
		out.Roles = append(out.Roles, api.AdminRole{Role: string(g.Role), Tenants: g.Tenants})
	}
	s.answerJSON(w, http.StatusOK, typeJSON, out)
	return nil
}

func (s *Server) listRevocations(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.Revoked.List(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b api.Revocation) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.TokenID, b.TokenID))
	})
	s.answerJSON(w, http.StatusOK, typeJSON, listed(all))
	return nil
}

// named returns whom a request is about. One's own token is never what a request
// that names nobody happens to mean.
func named(asked api.RevocationRequest, who admin.Identity) (api.Revocation, error) {
	in := api.Revocation{Issuer: asked.Issuer, TokenID: asked.TokenID, Subject: asked.Subject, Reason: asked.Reason}
	if !asked.Own {
		in.Issuer = cmp.Or(in.Issuer, admin.Issuer)
		return in, nil
	}
	if in.Issuer != "" || in.TokenID != "" || in.Subject != "" {
		return in, fault.New(fault.InvalidRequest, admin.ErrRevocation)
	}
	in.Issuer, in.TokenID = who.Issuer, who.TokenID
	if in.TokenID == "" {
		in.Subject = who.Subject // a token without an id ends with its fellows
	}
	return in, nil
}

// revoke ends tokens. Everybody may end their own, which is how one logs out.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var asked api.RevocationRequest
	if err := exactBody(r, &asked); err != nil {
		return err
	}
	in, err := named(asked, who)
	if err != nil {
		return err
	}
	own := in.Issuer == who.Issuer && (in.TokenID != "" && in.TokenID == who.TokenID || in.Subject != "" && in.Subject == who.Subject)
	if !own && !who.Has(admin.Owner, admin.AnyTenant) {
		return s.refuseRole(r, who, admin.Call{Tenant: admin.AnyTenant, Need: admin.Owner})
	}
	in.Author = who.String()
	done, err := s.Revoked.Add(r.Context(), in, func(tx store.Tx, done api.Revocation) error {
		_, err := s.Audit.AppendTx(tx, api.AuditEntry{
			Kind: api.AuditAdminRevoke, Decision: "change", Subject: who.String(), Object: "issuer/" + done.Issuer,
			Details: map[string]string{"token_id": done.TokenID, "subject": done.Subject, "reason": done.Reason},
		})
		return err
	})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, done)
	return nil
}
