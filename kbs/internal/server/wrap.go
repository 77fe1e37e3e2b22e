package server

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
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// recorder remembers what became of a request.
type recorder struct {
	http.ResponseWriter
	status int
	sent   int64 // bytes of the body
	fault  *fault.Fault
	admin  bool // an administrator was authenticated
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

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// noted remembers a refusal for the log, and tells who was turned away for now
// when to come again.
func noted(w http.ResponseWriter, f *fault.Fault) {
	if rec, ok := w.(*recorder); ok {
		rec.fault = f
	}
	var shed *limit.Error
	switch {
	case errors.As(f, &shed):
		w.Header().Set("Retry-After", strconv.Itoa(shed.Seconds()))
	case f.Code == fault.Unavailable:
		w.Header().Set("Retry-After", "1")
	}
}

// around is what every request goes through: limits, headers, recovery, and in
// the end one line in the log. The log names the route, never the path: paths
// name secrets.
func (s *Server) around(listener string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &observe.Request{HTTP: r, Listener: listener, Start: time.Now()}
		ctx := observe.Begin(r.Context(), s.Watcher, seen)
		r = r.WithContext(s.Guard.With(ctx, s.Guard.Client(r)))
		rec := &recorder{ResponseWriter: w}
		h := rec.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		in := &counted{ReadCloser: http.MaxBytesReader(rec, limit.Body(w, r.Body, s.BodyRate), s.MaxBody)}
		r.Body = in
		defer func() {
			seen.Route, seen.Received = r.Pattern, in.n
			s.finish(ctx, seen, rec)
		}()
		s.serve(next, rec, r)
	})
}

// finish tells what became of a request. A success of a guest is in the audit
// log and in the metrics; a line for each would only be noise.
func (s *Server) finish(ctx context.Context, seen *observe.Request, rec *recorder) {
	seen.Duration, seen.Status, seen.Sent = time.Since(seen.Start), rec.status, rec.sent
	level := slog.LevelInfo
	if rec.status < http.StatusBadRequest && seen.Listener != nameAdmins {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("event_id", "http.request"), slog.String("listener", seen.Listener), slog.String("method", seen.HTTP.Method),
		slog.String("route", seen.Route), slog.Int("status", rec.status), slog.Int64("ms", seen.Duration.Milliseconds()),
	}
	if rec.fault != nil {
		seen.Code, seen.Ticket = rec.fault.Code, rec.fault.Ticket
		attrs = append(attrs, slog.String("code", string(seen.Code)), slog.String("ticket", string(seen.Ticket)))
	}
	observe.End(ctx, seen)
	s.Logger.LogAttrs(ctx, level, "request", attrs...)
}

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

func (s *Server) serve(next http.Handler, w *recorder, r *http.Request) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.Logger.ErrorContext(r.Context(), "handler panicked",
			slog.String("event_id", "http.panic"), slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
		if w.status != 0 {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
		s.refuse(w, r, fault.Newf(fault.Internal, "panic: %v", p))
	}()
	if err := settleTarget(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	next.ServeHTTP(w, r)
}

// refuse answers, in the form that the path has, a request that reaches no
// handler.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	h := func(http.ResponseWriter, *http.Request) error { return err }
	if strings.HasPrefix(r.URL.Path, api.PathPrefix) {
		s.v0(opRelease, h).ServeHTTP(w, r)
		return
	}
	s.v1(opAdmin, h).ServeHTTP(w, r)
}

// body reads a whole request body, within the limit that around set.
func body(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		if f := known(err); f.Code == fault.TooLarge {
			return nil, f
		}
		return nil, fault.Newf(fault.InvalidRequest, "read body: %w", err)
	}
	return raw, nil
}

// answerJSON writes a value. Once the head is out an error can only be logged.
func (s *Server) answerJSON(w http.ResponseWriter, status int, contentType string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		s.Logger.Error("answer cannot be encoded", slog.String("type", fmt.Sprintf("%T", v)), slog.Any("error", err))
		status, raw = http.StatusInternalServerError, []byte(`{}`)
	}
	s.answer(w, status, contentType, raw)
}

func (s *Server) answer(w http.ResponseWriter, status int, contentType string, raw []byte) {
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(status)
	if _, err := w.Write(raw); err != nil {
		s.Logger.Debug("answer was not read", slog.Any("error", err))
	}
}
