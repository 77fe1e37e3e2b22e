package asapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// REST returns the handler of a listener for the Attestation Service over HTTP
// (kbs-protocol 11.2). It fails with the right status where the field's always
// says 500; the text is plain, as there.
func (s *Service) REST(logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				fail(r.Context(), w, err)
			}
		})
	}
	handle("POST /attestation", s.postAttestation)
	handle("POST /policy", s.postPolicy)
	handle("GET /policy", s.getPolicies)
	handle("POST /challenge", s.postChallenge)
	mux.Handle("GET "+api.PathJWKS, s.keySet())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return s.around(logger, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				logger.ErrorContext(r.Context(), "handler panicked",
					slog.String("route", r.Pattern), slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
				panic(http.ErrAbortHandler) // half an answer must not look whole
			}
		}()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, s.cfg.Limits.Message)
		mux.ServeHTTP(w, r)
	}))
}

func (s *Service) postAttestation(w http.ResponseWriter, r *http.Request) error {
	raw, err := read(r)
	if err != nil {
		return err
	}
	e, err := fromJSON(raw)
	token, err := s.evaluate(r.Context(), e, err)
	if err != nil {
		return err
	}
	answerText(w, token)
	return nil
}

func (s *Service) postPolicy(w http.ResponseWriter, r *http.Request) error {
	var p struct {
		ID     string `json:"policy_id"`
		Policy string `json:"policy"`
	}
	if err := readJSON(r, &p); err != nil {
		return err
	}
	_, err := bounded(r.Context(), s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.door.setPolicy(ctx, r.Header.Get("Authorization"), p.ID, p.Policy)
	})
	return err
}

func (s *Service) getPolicies(w http.ResponseWriter, r *http.Request) error {
	ids, err := bounded(r.Context(), s, func(ctx context.Context) ([]string, error) {
		return s.door.policies(ctx, r.Header.Get("Authorization"))
	})
	if err != nil {
		return err
	}
	type item struct {
		ID string `json:"policy-id"`
	}
	out := make([]item, len(ids))
	for i, id := range ids {
		out[i].ID = id
	}
	answerJSON(w, out)
	return nil
}

func (s *Service) postChallenge(w http.ResponseWriter, r *http.Request) error {
	var c struct {
		TEE    string `json:"tee"`
		Params string `json:"tee_params"`
	}
	if err := readJSON(r, &c); err != nil {
		return err
	}
	text, err := bounded(r.Context(), s, func(ctx context.Context) (string, error) { return s.cfg.Evaluator.Challenge(ctx, c.TEE, c.Params) })
	if err != nil {
		return err
	}
	answerText(w, text)
	return nil
}

func read(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	if _, large := err.(*http.MaxBytesError); large { //nolint:errorlint // io.ReadAll wraps nothing
		return nil, fault.New(fault.TooLarge, err)
	}
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	return raw, nil
}

func readJSON(r *http.Request, v any) error {
	raw, err := read(r)
	if err != nil {
		return err
	}
	if err := strictjson.Decode(raw, v); err != nil {
		return fault.New(fault.InvalidRequest, &malformed{err})
	}
	return nil
}

// An answer that the caller does not read is the caller's loss.

func fail(ctx context.Context, w http.ResponseWriter, err error) {
	note(ctx, err)
	code := status(err)
	if shed, ok := errors.AsType[*limit.Error](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(shed.Seconds()))
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, public(err))
}

func answerText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
