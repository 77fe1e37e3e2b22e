package ctl

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestSpans(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "30s": 30 * time.Second, "90m": 90 * time.Minute, "12h": 12 * time.Hour, "7d": 7 * day, "0d": 0, "1h30m": 90 * time.Minute,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "7", "-1h", "-1d", "1.5d", "1d2h", "200000d", "a week", "９d"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

// What help shows as a default is what the flag reads.
func TestSpanDefaults(t *testing.T) {
	for want, usual := range map[string]time.Duration{
		"": 0, "1s": time.Second, "30s": 30 * time.Second, "90s": 90 * time.Second, "5m": 5 * time.Minute, "2h": 2 * time.Hour, "1d": 24 * time.Hour, "90d": 2160 * time.Hour,
	} {
		f := pflag.NewFlagSet("x", pflag.ContinueOnError)
		var got time.Duration
		spanFlag(f, &got, "for", usual, "`DURATION`")
		shown := f.Lookup("for").DefValue
		if want == "90s" {
			want = "1m30s"
		}
		if shown != want {
			t.Errorf("%v is shown as %q, want %q", usual, shown, want)
		}
		if shown == "" {
			continue
		}
		if err := f.Parse([]string{"--for", shown}); err != nil || got != usual {
			t.Errorf("%q reads as %v, %v, want %v", shown, got, err, usual)
		}
	}
}

func TestPast(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "2026-01-02T15:04:05Z": time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), "36h": now.Add(-36 * time.Hour), "7d": now.AddDate(0, 0, -7),
	} {
		if got, err := parsePast("since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := parsePast("since", "yesterday", now); err == nil {
		t.Error("yesterday is no time")
	}
}
