package config

import (
	"log/slog"
	"strings"
)

// Logging settings of the broker's own log, on standard error. The audit log
// is something else.
type Logging struct {
	// Level is debug, info, warn or error. RUST_LOG sets it too, if it is one
	// plain level, as for the field's broker.
	Level string `toml:"level"`
	// Format is json or text.
	Format string `toml:"format"`
}

func defaultLogging() Logging { return Logging{Level: "info", Format: "json"} }

func (l Logging) validate(p *problems) {
	p.oneOf("logging.level", l.Level, "debug", "info", "warn", "error")
	p.oneOf("logging.format", l.Format, "json", "text")
}

// SlogLevel is the level for log/slog.
func (l Logging) SlogLevel() slog.Level {
	var out slog.Level // info
	_ = out.UnmarshalText([]byte(l.Level))
	return out
}

// rustLevel reads a RUST_LOG that is one level; anything more particular
// speaks of modules that are not here.
func rustLevel(text string) string {
	switch level := strings.ToLower(text); level {
	case "debug", "info", "warn", "error":
		return level
	case "trace":
		return "debug"
	}
	return ""
}
