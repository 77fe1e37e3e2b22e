package ctl

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// spanForm is how commands take a length of time.
const spanForm = "90m, 12h or 7d"

var errSpan = errors.New("is not a length of time such as " + spanForm)

// parseSpan reads a length of time: what package time reads, or whole days, by
// which people count how long a silence or a revocation lasts. It is not negative.
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errSpan
	}
	return d, nil
}

// parsePast reads the value of a flag that is a time, or how long ago it was.
func parsePast(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := parseSpan(s)
	if err != nil {
		return time.Time{}, usagef("--%s %q is neither a time such as 2026-01-02T15:04:05Z nor an age such as %s", flag, s, spanForm)
	}
	return now.Add(-d), nil
}

// spanFlag adds a flag whose value is a length of time.
func spanFlag(f *pflag.FlagSet, to *time.Duration, name string, usual time.Duration, usage string) {
	*to = usual
	f.Var((*spanValue)(to), name, usage)
}

type spanValue time.Duration

// String is empty for the default that help should not show.
func (s *spanValue) String() string {
	if *s == 0 {
		return ""
	}
	d := time.Duration(*s)
	if days := d / (24 * time.Hour); d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(days)) + "d"
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-len(zero)+1]
		}
	}
	return text
}

// Set implements pflag.Value.
func (s *spanValue) Set(text string) error {
	d, err := parseSpan(text)
	*s = spanValue(d)
	return err
}

// Type implements pflag.Value.
func (s *spanValue) Type() string { return "DURATION" }
