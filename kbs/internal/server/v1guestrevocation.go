package server

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

func (s *Server) listGuestRevocations(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.Guests.All(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b api.GuestRevocation) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.ID, b.ID))
	})
	s.answerJSON(w, http.StatusOK, typeJSON, listed(all))
	return nil
}

func (s *Server) revokeGuest(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var in api.GuestRevocation
	if err := exactBody(r, &in); err != nil {
		return err
	}
	// A path that no evidence can have would revoke nobody, and nobody would
	// notice.
	if first, _, deep := strings.Cut(in.Claim, "."); in.Claim != "" && in.Claim != "init_data" && (!deep || !attestation.IsPlatform(first)) {
		return fault.Newf(fault.InvalidRequest, "a claim begins with its platform, such as snp.chip_id, or is init_data; %q is neither", clip(in.Claim, maxClaim))
	}
	if in.Lease != "" {
		if _, err := s.Leases.Get(r.Context(), in.Lease); err != nil {
			return fmt.Errorf("the lease %s: %w", clip(in.Lease, maxClaim), err)
		}
	}
	in.Author = who.String()
	done, err := s.Guests.Add(r.Context(), in, token.IsForeign(in.TokenID), func(tx store.Tx, done api.GuestRevocation) error {
		return s.revocationEntry(tx, who, api.AuditGuestRevoke, done)
	})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, done)
	return nil
}

func (s *Server) reinstateGuest(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	err := s.Guests.Remove(r.Context(), r.PathValue("id"), func(tx store.Tx, gone api.GuestRevocation) error {
		return s.revocationEntry(tx, who, api.AuditGuestReinstate, gone)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) revocationEntry(tx store.Tx, who admin.Identity, kind api.AuditKind, r api.GuestRevocation) error {
	details := map[string]string{"reason": r.Reason}
	for name, value := range map[string]string{"token_id": r.TokenID, "claim": r.Claim, "value": r.Value, "lease": r.Lease} {
		if value != "" {
			details[name] = value
		}
	}
	if !r.Until.IsZero() {
		details["until"] = r.Until.Format(time.RFC3339)
	}
	_, err := s.Audit.AppendTx(tx, api.AuditEntry{
		Kind: kind, Decision: "change", Subject: who.String(), Object: "guest-revocation/" + r.ID, Details: details,
	})
	return err
}
