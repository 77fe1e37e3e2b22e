package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
)

// auditEntries sends the leaves exactly as they were hashed. Reading the log is
// itself in the log.
func (s *Server) auditEntries(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	from, err := number(r, "from", 0, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	if from, err = number(r, "continue", from, 0, math.MaxInt64); err != nil {
		return err
	}
	limit, err := number(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	filter, err := s.auditFilter(r, who)
	if err != nil {
		return err
	}
	if err := s.recordRead(r.Context(), who); err != nil {
		return err
	}
	page, err := s.AuditLog.Query(r.Context(), filter, from, int(limit))
	if err != nil {
		return err
	}
	// json.Marshal would escape "<" inside a raw message; the leaf has it bare.
	raw := []byte(`{"entries":[`)
	for i, e := range page.Entries {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, e...)
	}
	raw = fmt.Appendf(raw, `],"size":%d`, page.Size)
	if page.First > 0 {
		raw = fmt.Appendf(raw, `,"first":%d`, page.First)
	}
	if page.Next < page.Size {
		raw = fmt.Appendf(raw, `,"continue":"%d"`, page.Next)
	}
	s.answer(w, http.StatusOK, "application/json", append(raw, '}'))
	return nil
}

// auditFilter reads what is asked for. The log is one chain, and what others do
// is not a tenant's to read: only an auditor of the whole broker sees all.
func (s *Server) auditFilter(r *http.Request, who admin.Identity) (audit.Filter, error) {
	q := r.URL.Query()
	f := audit.Filter{
		Kind: q.Get("kind"), Decision: q.Get("decision"), Tenant: q.Get("tenant"),
		Subject: q.Get("subject"), Object: q.Get("object"), Code: q.Get("code"),
	}
	for name, to := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return f, fault.Newf(fault.InvalidRequest, "%s must be a time such as 2026-01-02T15:04:05Z", name)
		}
		*to = t
	}
	if s.System != nil && who.Has(admin.Auditor, admin.AnyTenant) {
		return f, nil
	}
	if f.Tenant != "" && f.Tenant != s.Tenant {
		return f, fault.Newf(fault.Forbidden, "the entries of %s alone can be read here", s.Tenant)
	}
	f.Tenant = s.Tenant
	if f.Since.Before(s.Since) { // a tenant of the same name may have been there before
		f.Since = s.Since
	}
	return f, nil
}

// readPeriod is how long one entry stands for all reading by a credential: an
// entry for each page would make every tail of the log feed itself.
const readPeriod = time.Hour

// maxReaders bounds the credentials that are remembered. Beyond it, some reads
// get an entry too many.
const maxReaders = 1024

// readers remembers who read the log in the last hour.
type readers struct {
	mu   sync.Mutex
	seen map[string]time.Time // by token id
}

// first reports whether this is a credential's first read in a period.
func (r *readers) first(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.seen[id]; ok && now.Sub(last) < readPeriod {
		return false
	}
	if r.seen == nil || len(r.seen) >= maxReaders {
		r.seen = map[string]time.Time{}
	}
	r.seen[id] = now
	return true
}

// forget lets the next read be recorded: this one could not be.
func (r *readers) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, id)
}

func (s *Server) recordRead(ctx context.Context, who admin.Identity) error {
	id := strings.Join([]string{who.Issuer, who.Subject, who.TokenID, who.Issued.String()}, "\x00")
	if !s.readers.first(id, s.Now()) {
		return nil
	}
	_, err := s.Audit.Append(ctx, api.AuditEntry{
		Kind: api.AuditRead, Decision: "allow", Subject: who.String(), Object: "audit/entries", Details: map[string]string{"credential": who.TokenID},
	})
	if err != nil {
		s.readers.forget(id)
		return fault.Newf(fault.Internal, "append audit entry: %w", err)
	}
	return nil
}

func (s *Server) auditCheckpoint(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	note, err := s.AuditLog.Checkpoint(r.Context())
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "text/plain; charset=utf-8", note)
	return nil
}

func (s *Server) auditKey(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	k, err := s.AuditLog.Keys(r.Context())
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "text/plain; charset=utf-8", []byte(k.Current))
	return nil
}

// auditKeys is what an auditor follows who knows an older key.
func (s *Server) auditKeys(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	k, err := s.AuditLog.Keys(r.Context())
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", k)
	return nil
}

// rotateAuditKey lets the key in force hand over to a new one.
func (s *Server) rotateAuditKey(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var want api.AuditKeyRotation
	if err := exactBody(r, &want); err != nil {
		return err
	}
	k, err := s.AuditLog.RotateKey(r.Context(), want.Current, api.AuditEntry{Subject: who.String()})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", k)
	return nil
}

func (s *Server) auditArchived(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	a, err := s.AuditLog.Archived(r.Context())
	if err != nil {
		return err
	}
	out := archiveOf(a)
	if limit := s.confirmed(); limit < math.MaxInt64 {
		out.Limit = &limit
	}
	s.answerJSON(w, http.StatusOK, "application/json", out)
	return nil
}

// archiveAudit believes that the caller has the entries because he knows the root
// of their tree. What sinks have not confirmed is not given up.
func (s *Server) archiveAudit(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	var want api.AuditArchiving
	if err := exactBody(r, &want); err != nil {
		return err
	}
	if want.Size < 1 || len(want.Root) != len(tlog.Hash{}) {
		return fault.Newf(fault.InvalidRequest, "size is a number of entries, and root the hash of their tree, 32 bytes")
	}
	a, err := s.AuditLog.Archive(r.Context(), want.Size, tlog.Hash(want.Root), s.confirmed(), api.AuditEntry{Subject: who.String()})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", archiveOf(a))
	return nil
}

// confirmed is the first entry that a sink has not confirmed yet.
func (s *Server) confirmed() int64 {
	if s.Confirmed == nil {
		return math.MaxInt64
	}
	return s.Confirmed()
}

func archiveOf(a audit.Archived) api.AuditArchived {
	root := a.Root()
	out := api.AuditArchived{Size: a.Size, Root: root[:]}
	for _, p := range a.Peaks {
		out.Peaks = append(out.Peaks, bytes.Clone(p[:]))
	}
	return out
}

func (s *Server) auditInclusion(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	size, err := number(r, "size", 0, 1, math.MaxInt64)
	if err != nil {
		return err
	}
	index, err := number(r, "index", -1, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	if size == 0 || index < 0 || index >= size {
		return fault.Newf(fault.InvalidRequest, "index and size must be given, and index be below size")
	}
	proof, err := s.AuditLog.Inclusion(r.Context(), index, size)
	return s.answerProof(w, proof, err)
}

func (s *Server) auditConsistency(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	size, err := number(r, "new", 0, 1, math.MaxInt64)
	if err != nil {
		return err
	}
	old, err := number(r, "old", 0, 1, math.MaxInt64)
	if err != nil {
		return err
	}
	if old == 0 || size < old {
		return fault.Newf(fault.InvalidRequest, "old and new must be given, and old not be above new")
	}
	proof, err := s.AuditLog.Consistency(r.Context(), old, size)
	return s.answerProof(w, proof, err)
}

func (s *Server) answerProof(w http.ResponseWriter, proof [][]byte, err error) error {
	if err != nil {
		return err
	}
	if proof == nil {
		proof = [][]byte{}
	}
	raw, err := json.Marshal(auditProof{proof})
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, "application/json", raw)
	return nil
}
