package progress

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// parts are the columns of a line, the most dispensable last.
type parts struct {
	verb, name, percent, bytes, rate string
	share                            float64 // 0 to 1; negative: unknown
}

// line lays out what is known of one piece of work.
func line(verb, name string, bytes, total int64, took time.Duration) parts {
	p := parts{verb: verb, name: name, share: -1, bytes: Size(bytes), rate: rate(bytes, took)}
	if total > 0 {
		p.share = min(float64(bytes)/float64(total), 1)
		p.percent = fmt.Sprintf("%3d %%", int(p.share*100))
		p.bytes = fmt.Sprintf("%s of %s", Size(bytes), Size(total))
	}
	return p
}

// fit makes a line of at most width columns: what does not fit goes, the bar
// first, then the rate.
func fit(p parts, width int) string {
	left := fmt.Sprintf("%-7s  %-15s", cut(p.verb, 7), cut(p.name, 15))
	right := fmt.Sprintf("  %5s  %20s  %10s", p.percent, p.bytes, p.rate)
	if len(left)+len(right) > width {
		right = fmt.Sprintf("  %5s", p.percent)
	}
	if room := width - len(left) - len(right) - 4; room >= 6 {
		right = "  " + bar(p.share, room) + right
	}
	return strings.TrimRight(cut(left+right, width), " ") + "\n"
}

func bar(share float64, room int) string {
	if share < 0 {
		return "[" + strings.Repeat(" ", room) + "]"
	}
	full := int(share * float64(room))
	head := ""
	if full < room {
		head = ">"
	}
	return "[" + strings.Repeat("=", full) + head + strings.Repeat(" ", room-full-len(head)) + "]"
}

func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}

// short is the part of a digest that people compare.
func short(name string) string {
	if _, hex, ok := strings.Cut(name, ":"); ok {
		name = hex
	}
	return cut(name, 12)
}

// Size spells a number of bytes for people, in powers of 1000: "64.1 MB".
func Size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for v >= 999.95 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", v, units[i])
}

func rate(n int64, took time.Duration) string {
	if n == 0 || took < redraw {
		return ""
	}
	return Size(int64(float64(n)/took.Seconds())) + "/s"
}

func span(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
