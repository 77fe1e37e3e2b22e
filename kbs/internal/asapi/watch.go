package asapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// around is what every call goes through, whatever its protocol: the address
// that it counts for, the pace of its body, and in the end what metrics, traces
// and the log are told. gRPC says 200 to everything, so what became of a call
// is noted where its error is turned into an answer.
func (s *Service) around(logger *slog.Logger, next http.Handler) http.Handler {
	return withPeer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &observe.Request{HTTP: r, Listener: s.cfg.Listener, Start: time.Now()}
		ctx := observe.Begin(r.Context(), s.cfg.Watcher, seen)
		ctx = s.cfg.Guard.With(ctx, s.cfg.Guard.Client(r))
		out := &recorder{ResponseWriter: w}
		in := &counted{ReadCloser: limit.Body(out, r.Body, s.cfg.BodyRate)}
		r = r.WithContext(ctx)
		r.Body = in
		defer func() {
			seen.Duration, seen.Received, seen.Sent = time.Since(seen.Start), in.n, out.sent
			if seen.Route == "" {
				seen.Route = r.Pattern
			}
			if seen.Status == 0 {
				seen.Status = out.status
			}
			observe.End(ctx, seen)
			s.log(ctx, logger, seen)
		}()
		next.ServeHTTP(out, r)
	}))
}

// log writes a line for what was refused; a success is in the metrics, and what
// it changed in the audit log.
func (s *Service) log(ctx context.Context, logger *slog.Logger, seen *observe.Request) {
	level := slog.LevelDebug
	if seen.Status >= http.StatusBadRequest {
		level = slog.LevelInfo
	}
	logger.LogAttrs(ctx, level, "request",
		slog.String("event_id", "http.request"), slog.String("listener", seen.Listener), slog.String("route", seen.Route),
		slog.Int("status", seen.Status), slog.Int64("ms", seen.Duration.Milliseconds()),
		slog.String("code", string(seen.Code)), slog.String("ticket", string(seen.Ticket)))
}

// note tells what became of a call.
func note(ctx context.Context, err error) {
	seen := observe.From(ctx)
	if seen == nil {
		return
	}
	seen.Status = status(err)
	switch e := err.(type) { //nolint:errorlint // both are made where they are returned
	case *refusal:
		seen.Code = e.code
	default:
		seen.Code = fault.CodeOf(err)
		if f, ok := errors.AsType[*fault.Fault](err); ok {
			seen.Ticket = f.Ticket
		}
	}
}

// callerAddr is the address of a call, as an administrator's API reads it from
// its own requests; "" if it has none.
func callerAddr(ctx context.Context) string {
	a := limit.Client(ctx)
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a, 0).String()
}

// recorder remembers what was answered. gRPC wants to flush.
type recorder struct {
	http.ResponseWriter

	status int
	sent   int64
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes the implicit 200.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.sent += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (r *recorder) Flush() {
	_ = http.NewResponseController(r.ResponseWriter).Flush() // where it is not possible, nothing waits
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// counted counts the bytes of a request's body.
type counted struct {
	io.ReadCloser

	n int64
}

// Read counts.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}
