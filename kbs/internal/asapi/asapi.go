// Package asapi lets the broker's verifier serve other brokers: the
// Attestation Service over gRPC and REST, and the Reference Value Provider
// Service over gRPC, as the field speaks them (kbs-protocol 11 and 12.3).
//
// Whoever reaches a listener may have evidence judged; that is what it is for.
// What changes or shows the state of the broker needs an administrator: the
// field's services have no authentication at all, and here such calls go
// through the broker's own API for administrators (see door).
package asapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// Evaluator judges evidence. Errors that a caller may learn of are
// *fault.Fault, recorded under a ticket.
type Evaluator interface {
	Evaluate(ctx context.Context, e attestation.Evaluation) (token string, err error)
	// Challenge returns what a platform needs beside a nonce, "" for most.
	Challenge(ctx context.Context, platform, params string) (string, error)
}

// Limits of one listener.
type Limits struct {
	Message     int64         // bytes of one request
	Time        time.Duration // of one call
	Concurrency int           // calls at once
	Queue       int           // calls beyond these that wait, each for no longer than Time
}

// Config joins what a service needs. All members are required.
type Config struct {
	Evaluator Evaluator
	// Admin is the broker's API for administrators: /kbs/v0 and /v1.
	Admin  http.Handler
	KeySet func(ctx context.Context) (api.KeySet, error)
	Limits Limits
	// Listener is the name of the listener in metrics, traces and logs.
	Listener string
	Watcher  observe.Watcher // nil watches nothing
	// Guard counts the calls of an address (limit.Attest), and its failures.
	Guard    *limit.Guard
	BodyRate int                 // bytes a second that a body must arrive with
	Shed     func(reason string) // is told of what the queue refuses
}

// Service is what all protocols share. It is safe for concurrent use.
type Service struct {
	cfg  Config
	door door
	gate *limit.Gate
}

// New returns a service. Each listener has one of its own, with its limits.
func New(cfg Config) *Service {
	l := cfg.Limits
	return &Service{cfg: cfg, door: door{cfg.Admin}, gate: limit.NewGate(limit.Width{Running: l.Concurrency, Waiting: l.Queue, Wait: l.Time}, cfg.Shed)}
}

// bounded runs one call within the limits.
func bounded[T any](ctx context.Context, s *Service, call func(context.Context) (T, error)) (T, error) {
	var none T
	if err := s.cfg.Guard.Take(limit.Attest, limit.Client(ctx)); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Time)
	defer cancel()
	leave, err := s.gate.Enter(ctx)
	if err != nil {
		return none, err
	}
	defer leave()
	return call(ctx)
}

// evaluate judges a request that decode has read, or not.
func (s *Service) evaluate(ctx context.Context, e attestation.Evaluation, err error) (string, error) {
	if err != nil {
		return "", fault.New(fault.InvalidRequest, &malformed{err})
	}
	return bounded(ctx, s, func(ctx context.Context) (string, error) { return s.cfg.Evaluator.Evaluate(ctx, e) })
}

// malformed says what is wrong with the form of a request. Whoever sent it may
// know.
type malformed struct{ err error }

func (m *malformed) Error() string { return m.err.Error() }
func (m *malformed) Unwrap() error { return m.err }

// public is what a caller is told.
func public(err error) string {
	var (
		form *malformed
		no   *refusal
		f    *fault.Fault
	)
	switch {
	case errors.As(err, &form):
		return fmt.Sprintf("%s: %s", fault.InvalidRequest, form)
	case errors.As(err, &no):
		return no.text
	case errors.As(err, &f):
		return f.Public()
	}
	return string(fault.Internal)
}

// status is the HTTP status of an error.
func status(err error) int {
	var (
		no *refusal
		f  *fault.Fault
	)
	switch {
	case errors.As(err, &no):
		return no.status
	case errors.As(err, &f):
		return f.Code.Status()
	}
	return http.StatusInternalServerError
}
