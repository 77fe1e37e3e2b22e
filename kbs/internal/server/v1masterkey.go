package server

import (
	"errors"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// MasterKeys are the keys that all tenants' records are under, and the walk
// that moves them.
type MasterKeys struct {
	*kek.Set
	*kek.Walker
}

// errElsewhere says that the master key is no tenant's.
var errElsewhere = errors.New("the master key belongs to the broker, not to this tenant")

func (s *Server) getMasterKey(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	if s.MasterKeys == nil {
		return fault.New(fault.NotFound, errElsewhere)
	}
	state, err := s.MasterKeys.State(r.Context())
	if err != nil {
		return err
	}
	return s.answerMasterKey(w, r, state)
}

func (s *Server) answerMasterKey(w http.ResponseWriter, r *http.Request, state kek.State) error {
	out := api.MasterKey{Current: state.Current, Keys: []api.MasterKeyState{}}
	for _, k := range state.Keys {
		row := api.MasterKeyState{ID: k.ID, State: "opening", Since: k.Since, Retired: k.Retired}
		switch {
		case k.ID == state.Current:
			row.State = "current"
		case !k.Retired.IsZero():
			row.State = "retired"
		}
		out.Keys = append(out.Keys, row)
	}
	p, err := s.MasterKeys.Progress(r.Context())
	switch {
	case err == nil:
		out.Rewrap = &api.Rewrap{
			To: p.To, Started: p.Started, Finished: p.Finished, Pass: p.Pass, Looked: p.Looked, Moved: p.Moved,
			Failed: p.FailedCount, FailedKeys: p.Failed,
		}
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	s.answerJSON(w, http.StatusOK, "application/json", out)
	return nil
}

func (s *Server) rotateMasterKey(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	if s.MasterKeys == nil {
		return fault.New(fault.NotFound, errElsewhere)
	}
	var in api.RotateMasterKey
	if err := exactBody(r, &in); err != nil {
		return err
	}
	state, err := s.MasterKeys.Rotate(r.Context(), in.To, func(tx store.Tx, from, to string) error {
		_, err := s.Audit.AppendTx(tx, api.AuditEntry{
			Kind: api.AuditMasterKeyRotate, Decision: "change", Subject: who.String(), Object: "masterkey/" + to,
			Details: map[string]string{"from": from},
		})
		return err
	})
	switch {
	case errors.Is(err, kek.ErrUnknown):
		return fault.New(fault.NotFound, err)
	case errors.Is(err, kek.ErrShared):
		return fault.New(fault.InvalidRequest, err)
	case err != nil:
		return err
	}
	s.MasterKeys.Wake()
	return s.answerMasterKey(w, r, state)
}
