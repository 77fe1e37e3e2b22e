package logport

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
)

// NewHandler writes records as the field's agent does, one JSON object a line
// with the keys msg, level, ts, pid, name, source, subsystem and version, and
// then those of the record. All are at the top: the members of a group are named
// GROUP.MEMBER. Levels are spelt as the Rust runtime's forwarder looks for them:
// DEBG, INFO, WARN, ERRO; anything else it takes for INFO.
func NewHandler(w io.Writer, level slog.Leveler, version string) slog.Handler {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: rename})
	return flat{handler: h.WithAttrs([]slog.Attr{
		slog.String("pid", strconv.Itoa(os.Getpid())),
		slog.String("name", "kata-agent"), // what tools that sort the host's log look for
		slog.String("source", "agent"),
		slog.String("subsystem", "root"),
		slog.String("version", version),
	})}
}

func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		if a.Value.Kind() == slog.KindTime {
			return slog.Time("ts", a.Value.Time().UTC())
		}
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok {
			return slog.String(slog.LevelKey, name(level))
		}
	}
	return a
}

func name(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARN"
	}
	return "ERRO"
}

// flat is a handler without groups.
type flat struct {
	handler slog.Handler
	prefix  string // of keys, with its dot
}

func (f flat) Enabled(ctx context.Context, l slog.Level) bool { return f.handler.Enabled(ctx, l) }

func (f flat) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(flatten(nil, f.prefix, a)...)
		return true
	})
	return f.handler.Handle(ctx, out)
}

func (f flat) WithAttrs(attrs []slog.Attr) slog.Handler {
	var all []slog.Attr
	for _, a := range attrs {
		all = flatten(all, f.prefix, a)
	}
	return flat{f.handler.WithAttrs(all), f.prefix}
}

func (f flat) WithGroup(name string) slog.Handler {
	if name == "" {
		return f
	}
	return flat{f.handler, f.prefix + name + "."}
}

// reserved are the keys of every line, which no record may say again: a reader
// would not know which one counts.
var reserved = map[string]bool{
	"msg": true, "level": true, "ts": true, "time": true, "pid": true, "name": true, "source": true, "subsystem": true, "version": true,
}

func flatten(list []slog.Attr, prefix string, a slog.Attr) []slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			list = flatten(list, prefix, member)
		}
		return list
	}
	key := prefix + a.Key
	if reserved[key] {
		key = "_" + key
	}
	if v.Kind() == slog.KindDuration {
		v = slog.StringValue(v.Duration().String())
	}
	return append(list, slog.Attr{Key: key, Value: v})
}
