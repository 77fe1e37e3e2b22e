// Package logging makes the broker's own log: what an operator reads to find
// out what the broker is doing. Who did what is in the audit log, which is
// something else.
//
// Lines have an event_id where a machine should find them, and the trace_id of
// the request that they belong to. Secrets cannot get in by type (package
// secret), and neither do paths, reference values or claims: those are under
// the ticket.
package logging

import (
	"context"
	"io"
	"log/slog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// New returns a logger that writes lines of JSON, or of text for people, and
// whose level may be changed while it is used.
func New(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(handler{slog.NewTextHandler(w, options)})
	}
	return slog.New(handler{slog.NewJSONHandler(w, options)})
}

// handler adds what the context knows.
type handler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if q := observe.From(ctx); q != nil && q.TraceID != "" {
		r.AddAttrs(slog.String("trace_id", q.TraceID))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
