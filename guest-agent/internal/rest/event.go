package rest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// eventResult is the answer to an event, with a status of 200 also where
// nothing is recorded. success is a string, as upstream has it.
type eventResult struct {
	Success string `json:"success"`
	Message string `json:"message,omitempty"`
}

// The messages of upstream's agent.
const (
	messageNotSupported = "The platform does not support runtime measurement"
	messageDisabled     = "Attestation Agent does not enable eventlog recording"
)

// event records a runtime event of a workload: it extends a register and cannot
// be taken back.
func (s handler) event(w http.ResponseWriter, r *http.Request) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return errBadRequest // also one that is too long
	}
	var body struct {
		Domain    string `json:"domain"`
		Operation string `json:"operation"`
		Content   string `json:"content"`
	}
	if err := strictjson.Decode(raw, &body); err != nil {
		return errBadRequest
	}
	e := eventlog.RuntimeEvent{Domain: body.Domain, Operation: body.Operation, Content: body.Content}
	if err := e.Validate(); err != nil {
		return errBadRequest
	}
	result := eventResult{Success: "true"}
	switch err := s.tokens.Record(r.Context(), e); {
	case errors.Is(err, aael.ErrNotSupported):
		result = eventResult{"false", messageNotSupported}
	case errors.Is(err, aael.ErrDisabled):
		result = eventResult{"false", messageDisabled}
	case err != nil:
		return err
	}
	out, err := json.Marshal(result)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out) // the peer may be gone
	return nil
}
