package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// policyName reads the policy that a path names.
func policyName(r *http.Request) (policy.Kind, string, error) {
	id := r.PathValue("id")
	kind, err := policy.ParseName(r.PathValue("kind"), id)
	return kind, id, err
}

func (s *Server) listPolicies(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.Policies.List(r.Context())
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", listed(all))
	return nil
}

func (s *Server) getPolicy(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	n, err := number(r, "version", 0, 1, 1<<40)
	if err != nil {
		return err
	}
	p, err := s.Policies.Version(r.Context(), kind, id, n)
	if err != nil {
		return err
	}
	s.answerPolicy(w, p)
	return nil
}

func (s *Server) policyVersions(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	all, err := s.Policies.Versions(r.Context(), kind, id)
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", listed(all))
	return nil
}

func (s *Server) answerPolicy(w http.ResponseWriter, p api.Policy) {
	w.Header().Set("ETag", `"`+strconv.FormatInt(p.Version, 10)+`"`)
	s.answerJSON(w, http.StatusOK, "application/json", p)
}

func (s *Server) putPolicy(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	var p api.Policy
	if err := exactBody(r, &p); err != nil {
		return err
	}
	if (p.Kind != "" && p.Kind != string(kind)) || (p.ID != "" && p.ID != id) {
		return fault.Newf(fault.InvalidRequest, "the body names another policy than the path")
	}
	if p.Version, err = seen(r, p.Version); err != nil {
		return err
	}
	p.Kind, p.ID, p.Author = string(kind), id, who.String()
	stored, err := s.Policies.Put(r.Context(), p, s.policyEntry(who, api.AuditPolicyPut))
	if err != nil {
		return err
	}
	s.answerPolicy(w, stored)
	return nil
}

func (s *Server) deletePolicy(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	want, err := seen(r, int64(store.Any))
	if err != nil {
		return err
	}
	if err := s.Policies.Delete(r.Context(), kind, id, who.String(), want, s.policyEntry(who, api.AuditPolicyDelete)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// movePolicy promotes, demotes and rolls back.
func (s *Server) movePolicy(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	var c api.StageChange
	if err := exactBody(r, &c); err != nil {
		return err
	}
	if c.Version, err = seen(r, c.Version); err != nil {
		return err
	}
	m, err := s.Policies.Move(r.Context(), kind, id, c, s.Engine.Impact, s.moveEntry(who))
	if err != nil {
		return s.recordHeldUp(r.Context(), who, policy.Ref(kind, id, c.Target), err)
	}
	s.answerPolicy(w, m.Policy)
	return nil
}

func (s *Server) policyShadow(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	if err := s.Engine.Settle(r.Context()); err != nil {
		return err
	}
	report, err := s.Policies.Shadow(r.Context(), kind, id)
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", report)
	return nil
}

// replayPolicy changes nothing; it is a POST because it brings a text.
func (s *Server) replayPolicy(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	kind, id, err := policyName(r)
	if err != nil {
		return err
	}
	var req api.ReplayRequest
	if err := exactBody(r, &req); err != nil {
		return err
	}
	report, err := s.Engine.Replay(r.Context(), kind, id, req)
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", report)
	return nil
}

func (s *Server) listDecisions(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	limit, err := number(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	var since time.Time
	if text := r.URL.Query().Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return fault.Newf(fault.InvalidRequest, "since is not a time as of RFC 3339")
		}
	}
	if err := s.Engine.Settle(r.Context()); err != nil {
		return err
	}
	all, err := s.Policies.Decisions(r.Context(), since, r.URL.Query().Get("after"), int(limit))
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", listed(all))
	return nil
}

// recordHeldUp leaves a trace of a promotion that was refused for what it
// would allow: somebody tried.
func (s *Server) recordHeldUp(ctx context.Context, who admin.Identity, ref string, err error) error {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != fault.NewlyAllowed {
		return err
	}
	_, aerr := s.Audit.Append(ctx, api.AuditEntry{
		Kind: api.AuditPolicyStage, Decision: "deny", Code: string(f.Code), Subject: who.String(), Object: "policy/" + ref,
	})
	if aerr != nil {
		return fault.Newf(fault.Internal, "append audit entry: %w", aerr)
	}
	return err
}

// policyEntry appends the entry of a policy change in its transaction. The
// hash lets anyone who has the text find out when it was in force.
func (s *Server) policyEntry(who admin.Identity, kind api.AuditKind) policy.Change {
	return func(tx store.Tx, p api.Policy) error {
		if s.Remote != nil && p.Kind == string(policy.Attestation) {
			return errRemote("the attestation policies")
		}
		_, err := s.Audit.AppendTx(tx, api.AuditEntry{
			Kind: kind, Decision: "change", Subject: who.String(),
			Object:  "policy/" + policy.Ref(policy.Kind(p.Kind), p.ID, p.Version),
			Details: map[string]string{"sha256": p.SHA256, "stage": p.Stage},
		})
		return err
	}
}

// moveEntry tells which version was in force before and after, and what was
// known about the difference.
func (s *Server) moveEntry(who admin.Identity) func(store.Tx, policy.Moved) error {
	return func(tx store.Tx, m policy.Moved) error {
		decimal := func(n int64) string { return strconv.FormatInt(n, 10) }
		details := map[string]string{
			"sha256": m.Policy.SHA256, "stage": m.Policy.Stage, "from": decimal(m.From), "to": decimal(m.To),
		}
		if m.Change.Note != "" {
			details["note"] = m.Change.Note
		}
		if m.Change.AllowNewlyAllowed {
			details["allow_newly_allowed"] = decimal(m.Impact.NewlyAllowed)
		}
		kind := api.AuditPolicyStage
		if m.Change.Rollback {
			kind = api.AuditPolicyRollback
		}
		_, err := s.Audit.AppendTx(tx, api.AuditEntry{
			Kind: kind, Decision: "change", Subject: who.String(), Details: details,
			Object: "policy/" + policy.Ref(policy.Kind(m.Policy.Kind), m.Policy.ID, m.Policy.Version),
		})
		return err
	}
}
