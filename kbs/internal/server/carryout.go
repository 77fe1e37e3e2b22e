package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/approval"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// outcome is the answer that the author of an approved change would have had.
type outcome struct {
	status int
	body   []byte
}

// fault returns nil for a success. An administrator may see the detail.
func (o outcome) fault() *fault.Fault {
	if o.status/100 == 2 {
		return nil
	}
	var p struct {
		Code   fault.Code   `json:"code"`
		Detail string       `json:"detail"`
		Ticket fault.Ticket `json:"ticket"`
	}
	_ = json.Unmarshal(o.body, &p) // an answer without a body has no detail
	if !p.Code.Known() {
		p.Code = fault.OfStatus(o.status)
	}
	return fault.Newf(p.Code, "the approved change was refused: %s", p.Detail).With(p.Ticket)
}

// carryOut makes an approved change: the same request, by the same author, to
// the same rooms, with the approver named in its entry.
func (s *Server) carryOut(ctx context.Context, a approval.Request, who admin.Identity) (outcome, error) {
	raw, err := s.Approvals.Book.Body(ctx, a.ID)
	if err != nil {
		return outcome{}, err
	}
	d := s.Deps
	d.Approvals = nil
	d.Audit = marking{s.Audit, s.Tenant, s.Store, s.Approvals.Book, a, who}
	d.Admins = author{s.Admins, s.Revoked, a.Asker}
	run := &Server{Deps: d, document: s.document, wanted: a.Seen}
	req, err := http.NewRequestWithContext(ctx, a.Method, a.Path, bytes.NewReader(raw))
	if err != nil {
		return outcome{}, err
	}
	req.RequestURI = a.Path
	if a.IfMatch != "" {
		req.Header.Set("If-Match", a.IfMatch)
	} else if a.Seen != nil && !req.URL.Query().Has("version") && !conditional(raw) {
		req.Header.Set("If-Match", strconv.Quote(strconv.FormatInt(*a.Seen, 10)))
	}
	out := &page{header: http.Header{}}
	run.mount(Routes(), OnAdmin).ServeHTTP(&recorder{ResponseWriter: out, admin: true}, req)
	return outcome{out.status, out.body.Bytes()}, nil
}

// page is an answer that is kept.
type page struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (p *page) Header() http.Header { return p.header }

// WriteHeader keeps the first status.
func (p *page) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
	}
}

// Write keeps the body.
func (p *page) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.body.Write(b)
}

// conditional reports whether a body says itself which version it is about.
func conditional(raw []byte) bool {
	var b struct {
		Version *int64 `json:"version"`
	}
	return json.Unmarshal(raw, &b) == nil && b.Version != nil && *b.Version >= 0
}

// unchanged refuses an approved change of an object that is not what its author
// saw.
func (s *Server) unchanged(r *http.Request, route Route) error {
	if s.wanted == nil || route.version == nil {
		return nil
	}
	raw, err := body(r)
	if err != nil {
		return err
	}
	r.Body = nopCloser{bytes.NewReader(raw)}
	now, err := route.version(s, r, raw)
	if err != nil {
		return err
	}
	if now != *s.wanted {
		return fault.Newf(fault.Conflict, "%w: it is at version %d, and was at %d", approval.ErrChanged, now, *s.wanted)
	}
	return nil
}

type nopCloser struct{ *bytes.Reader }

// Close does nothing.
func (nopCloser) Close() error { return nil }

// author stands for who asked for a change, with the roles that they had then.
// What was revoked since does not come back by an approval.
type author struct {
	Admins

	revoked interface {
		Revoked(ctx context.Context, id admin.Identity) (bool, error)
	}
	who admin.Identity
}

// Authenticate returns the author, whatever the header.
func (a author) Authenticate(ctx context.Context, _ string) (admin.Identity, error) {
	switch revoked, err := a.revoked.Revoked(ctx, a.who); {
	case err != nil:
		return admin.Identity{}, err
	case revoked:
		return admin.Identity{}, admin.ErrUnauthenticated
	}
	return a.who, nil
}

// marking is the recorder of an approved change. Its first entry marks the
// request as carried out, in the same transaction: of two who try, one fails,
// and with it the change that it would have made.
type marking struct {
	audit.Recorder

	tenant string
	st     store.Store
	book   *approval.Book
	a      approval.Request
	by     admin.Identity
}

// AppendTx implements audit.Recorder.
func (m marking) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	if e.Decision == "change" {
		if err := m.mark(tx); err != nil {
			return api.AuditEntry{}, err
		}
		details := map[string]string{"approval": m.a.ID, "approved_by": m.by.String()}
		for k, v := range e.Details {
			details[k] = v
		}
		e.Details = details
	}
	return m.Recorder.AppendTx(tx, e)
}

// Append implements audit.Recorder.
func (m marking) Append(ctx context.Context, e api.AuditEntry) (out api.AuditEntry, err error) {
	err = m.st.Update(ctx, func(tx store.Tx) (err error) {
		out, err = m.AppendTx(tx, e)
		return err
	})
	return out, err
}

// mark reaches the tenant's records from whatever transaction the change is in.
func (m marking) mark(tx store.Tx) error {
	err := m.book.Mark(tenant.Tx(tx, m.tenant), m.a.ID, m.a.Run)
	if errors.Is(err, approval.ErrState) || errors.Is(err, store.ErrNotFound) {
		return fault.New(fault.Conflict, approval.ErrState)
	}
	return err
}
