package server

import (
	"encoding/json"
	"math"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/strictjson"
)

// auditEntries sends the leaves exactly as they were hashed.
func (s *Server) auditEntries(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	from, err := number(r, "from", 0, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	entries, err := s.AuditLog.Entries(r.Context(), from, int(limit))
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
	s.answer(w, http.StatusOK, "application/json", append(raw, "]}"...))
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
