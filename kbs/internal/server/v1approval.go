package server

import (
	"context"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/approval"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Approvals are the changes of a tenant that need two people.
type Approvals struct {
	Book *approval.Book
	// Marks reports whether the tenant wants a second person for a change.
	Marks func(change string) bool
}

// waits reports whether a call is one that needs a second person. What changes
// a tenant is for that tenant to mark as well as for the default one.
func (s *Server) waits(r *http.Request, route Route) (bool, error) {
	if s.Approvals == nil || route.Change == "" {
		return false, nil
	}
	if s.Approvals.Marks(route.Change) {
		return true, nil
	}
	name := r.PathValue("tenant")
	if !route.System || name == "" {
		return false, nil
	}
	rec, err := s.System.Tenants.Get(r.Context(), name)
	if errors.Is(err, store.ErrNotFound) || known(err).Code == fault.NotFound {
		return false, nil
	}
	return rec.Marks(route.Change), err
}

// ask keeps a change until a second person approves it, and says so with 202:
// to a client that knows no approvals it is not the answer it hoped for.
func (s *Server) ask(w http.ResponseWriter, r *http.Request, route Route, who admin.Identity) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	in := approval.Request{Asker: who, IfMatch: r.Header.Get("If-Match")}
	in.Action, in.Method, in.Path = route.Change, r.Method, r.URL.RequestURI()
	if route.version != nil {
		v, err := route.version(s, r, raw)
		if err != nil {
			return err
		}
		in.Seen = &v
	}
	if route.Request.Type == typeJSON && utf8.Valid(raw) {
		in.Body = clip(string(raw), maxShown)
	}
	kept, err := s.Approvals.Book.Ask(r.Context(), in, raw, s.approvalEntry(who, api.AuditApprovalRequest))
	if err != nil {
		return err
	}
	w.Header().Set("Location", base(r.Context())+api.PathApprovals+"/"+kept.ID)
	if route.v0() {
		s.answerJSON(w, http.StatusAccepted, typeJSON, api.ErrorInformation{
			Type:   api.ErrorTypePrefix + "ApprovalPending",
			Detail: "The change waits for a second person: kbsctl approve approval/" + kept.ID,
			Code:   string(fault.ApprovalPending),
		})
		return nil
	}
	s.answerJSON(w, http.StatusAccepted, typeJSON, kept.Approval)
	return nil
}

// maxShown bounds what of a body is shown to who has to decide, in bytes.
const maxShown = 64 << 10

func (s *Server) approvalEntry(who admin.Identity, kind api.AuditKind) approval.Change {
	return func(tx store.Tx, r approval.Request) error {
		_, err := s.Audit.AppendTx(tx, api.AuditEntry{
			Kind: kind, Decision: "change", Subject: who.String(), Object: "approval/" + r.ID,
			Details: map[string]string{
				"action": r.Action, "request": clip(r.Method+" "+r.Path, maxObject), "sha256": r.SHA256, "author": r.Author, "reason": r.Reason,
			},
		})
		return err
	}
}

func (s *Server) listApprovals(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.Approvals.Book.List(r.Context())
	if err != nil {
		return err
	}
	out := make([]api.Approval, len(all))
	for i := range all {
		out[i] = all[i].Approval
		out[i].Body = ""
	}
	s.answerJSON(w, http.StatusOK, typeJSON, listed(out))
	return nil
}

func (s *Server) getApproval(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	a, err := s.Approvals.Book.Get(r.Context(), r.PathValue("approval"))
	if err != nil {
		return err
	}
	tag(w, a.Version)
	s.answerJSON(w, http.StatusOK, typeJSON, a.Approval)
	return nil
}

func readDecision(r *http.Request) (api.ApprovalDecision, error) {
	raw, err := body(r)
	if err != nil || len(raw) == 0 {
		return api.ApprovalDecision{}, err
	}
	var d api.ApprovalDecision
	err = exactly(raw, &d)
	return d, err
}

func (s *Server) deny(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	d, err := readDecision(r)
	if err != nil {
		return err
	}
	id := r.PathValue("approval")
	a, err := s.Approvals.Book.Get(r.Context(), id)
	if err != nil {
		return err
	}
	own := who.Subject != "" && a.Asker.Same(who)
	if c := s.approving(a); !own && !who.Has(c.Need, c.Tenant) {
		return s.refuseRole(r, who, c)
	}
	if a, err = s.Approvals.Book.Deny(r.Context(), id, who, d.Reason, s.approvalEntry(who, api.AuditApprovalDeny)); err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, a.Approval)
	return nil
}

// approving is the role that decides about a request: an approver of the
// tenant, or of the broker as a whole where the change is the broker's.
func (s *Server) approving(a approval.Request) admin.Call {
	c := admin.Call{Tenant: s.Tenant, Need: admin.Approver}
	for _, r := range Routes() {
		if r.Change == a.Action && r.System {
			c.Tenant = admin.AnyTenant
		}
	}
	return c
}

func (s *Server) approve(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	d, err := readDecision(r)
	if err != nil {
		return err
	}
	book, id := s.Approvals.Book, r.PathValue("approval")
	a, err := book.Get(r.Context(), id)
	if err != nil {
		return err
	}
	if c := s.approving(a); !who.Has(c.Need, c.Tenant) {
		return s.refuseRole(r, who, c)
	}
	if a, err = book.Approve(r.Context(), id, who, d.Reason, s.approvalEntry(who, api.AuditApprovalApprove)); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context()) // whoever approved may go away
	out, err := s.carryOut(ctx, a, who)
	if err != nil {
		return err
	}
	f := out.fault()
	code := ""
	if f != nil {
		code = string(f.Code)
	}
	if a, err = book.Finish(ctx, id, a.Run, out.status, code); err != nil {
		return err
	}
	if f != nil {
		return f
	}
	s.answerJSON(w, http.StatusOK, typeJSON, a.Approval)
	return nil
}
