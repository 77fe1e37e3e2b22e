package server

import (
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
)

// maxAppraised is how many pieces of evidence one request has: the CPU's, and
// kinds of devices.
const maxAppraised = 16

// appraise records who asked, and what came of it, before it answers.
func (s *Server) appraise(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var req api.AppraisalRequest
	if err := exactBody(r, &req); err != nil {
		return err
	}
	if n := len(req.Evidence); n == 0 || n > maxAppraised {
		return fault.Newf(fault.InvalidRequest, "%d pieces of evidence: 1 to %d are possible", n, maxAppraised)
	}
	out, err := s.Handshake.Appraise(r.Context(), req)
	e := api.AuditEntry{Kind: api.AuditAppraise, Decision: "allow", Object: "evidence", Details: map[string]string{}}
	if err != nil {
		f := known(err)
		e.Decision, e.Code = "deny", string(f.Code)
		if f.Code.Status() >= http.StatusInternalServerError {
			e.Decision = "error"
		}
	}
	for _, a := range out.Attesters {
		e.Details[a.Name+"_platform"], e.Details[a.Name+"_status"] = a.Platform, a.Status
	}
	if aerr := s.asked(r, who, e); aerr != nil {
		return aerr
	}
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, typeJSON, out)
	return nil
}

// getImagePolicy shows a resource if it is an image policy: those hold rules and
// public keys, and whoever ships images has to know them. What else lies at the
// path is not shown, whatever its name is.
func (s *Server) getImagePolicy(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	item, err := s.Resources.Get(r.Context(), path, 0)
	if err != nil {
		return err
	}
	defer item.Value.Destroy()
	e := api.AuditEntry{Kind: api.AuditImagePolicyRead, Decision: "allow", Object: "resource/" + path.String()}
	is := outline.Is(item.Value.Reveal())
	if !is {
		e.Decision, e.Code = "deny", string(fault.InvalidRequest)
	}
	if err := s.asked(r, who, e); err != nil {
		return err
	}
	if !is {
		return fault.Newf(fault.InvalidRequest, "resource/%s is no image policy, so only guests may read it", path)
	}
	s.answer(w, http.StatusOK, typeJSON, item.Value.Reveal())
	return nil
}

// asked puts on record what an administrator asked for.
func (s *Server) asked(r *http.Request, who admin.Identity, e api.AuditEntry) error {
	e.Subject = who.String()
	if _, err := s.Audit.Append(r.Context(), e); err != nil {
		return fault.Newf(fault.Internal, "append audit entry: %w", err)
	}
	return nil
}
