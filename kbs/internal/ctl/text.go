package ctl

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// clean makes text safe for a terminal. Guests choose parts of what a ticket
// says, so escape sequences and direction overrides must arrive as text. Line
// feeds stay.
func clean(s string) string {
	ok := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case ok(r):
			b.WriteRune(r)
		case r == '\t':
			b.WriteString("    ")
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		i += n
	}
	return b.String()
}

// cell is clean for one line of a table.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	return strings.ReplaceAll(clean(s), "\n", `\n`)
}

// age is the time between t and now in one unit, as tables show it: "42s",
// "5m", "3h", "12d", "2y"; "in 5m" for the future and "-" for no time.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d)
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 2*365*day:
		return fmt.Sprintf("%dd", int(d/day))
	}
	return fmt.Sprintf("%dy", int(d/(365*day)))
}

// stamp is t for a text that shows one object: absolute, with the age.
func stamp(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	a := age(t, now)
	if !strings.HasPrefix(a, "in ") {
		a += " ago"
	}
	return fmt.Sprintf("%s (%s)", t.UTC().Format(time.RFC3339), a)
}

// size is a number of bytes for people.
func size(n int) string {
	if n < 10<<10 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
