package server

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/strictjson"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// auditEntries sends the leaves exactly as they were hashed.
func (s *Server) auditEntries(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	from, err := number(r, "from", 0, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	read := s.AuditLog.Entries
	next := int64(-1)
	if s.System == nil || !who.Has(admin.Auditor, admin.AnyTenant) {
		read = func(ctx context.Context, from int64, limit int) (own []json.RawMessage, err error) {
			own, next, err = s.ownEntries(ctx, from, limit)
			return own, err
		}
	}
	entries, err := read(r.Context(), from, int(limit))
	if err != nil {
		return err
	}
	// json.Marshal would escape "<" inside a raw message; the leaf has it bare.
	raw := []byte(`{"entries":[`)
	for i, e := range entries {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, e...)
	}
	raw = append(raw, ']')
	if next >= 0 {
		raw = append(append(raw, `,"next":`...), strconv.FormatInt(next, 10)...)
	}
	s.answer(w, http.StatusOK, "application/json", append(raw, '}'))
	return nil
}

// What one request reads of the log at most, in entries.
const (
	scanPage  = 1000
	scanPages = 20
)

// ownEntries are those of the tenant alone, from an index on: the log is one
// chain, and what others do is not this tenant's to read. next is where to go
// on; it is the size of the log when there is no more.
func (s *Server) ownEntries(ctx context.Context, from int64, limit int) (own []json.RawMessage, next int64, err error) {
	name := s.Tenant
	if name == tenant.Default {
		name = ""
	}
	for range scanPages {
		page, err := s.AuditLog.Entries(ctx, from, scanPage)
		if err != nil {
			return nil, 0, err
		}
		for _, raw := range page {
			if len(own) == limit {
				return own, from, nil
			}
			from++
			var e struct {
				Tenant string    `json:"tenant"`
				Time   time.Time `json:"time"`
			}
			if err := json.Unmarshal(raw, &e); err != nil {
				return nil, 0, err
			}
			// A tenant of the same name may have been there before.
			if e.Tenant == name && !e.Time.Before(s.Since) {
				own = append(own, raw)
			}
		}
		if len(page) < scanPage {
			break
		}
	}
	return own, from, nil
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
	raw, err := body(r)
	if err != nil {
		return err
	}
	var want api.AuditKeyRotation
	if err := strictjson.Decode(raw, &want); err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	k, err := s.AuditLog.RotateKey(r.Context(), want.Current, api.AuditEntry{Subject: who.String()})
	if err != nil {
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", k)
	return nil
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
