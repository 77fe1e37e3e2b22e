package progress_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/image/progress"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func columns(n int) func() int { return func() int { return n } }

func at(item int, bytes int64, done bool) progress.Update {
	return progress.Update{
		Verb: "encrypt", Past: "encrypted", Item: item, Items: 2, Name: "sha256:" + strings.Repeat("abcdef0123", 6), Bytes: bytes, Total: 64_100_000, Done: done,
	}
}

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	d := progress.New(&out, progress.Options{}) // a buffer is no terminal
	d.Update(at(1, 1000, false))
	d.Update(at(1, 64_100_000, true))
	d.Update(at(0, 64_100_000, true))
	d.Close()
	name := at(0, 0, false).Name
	if want := "layer 1/2 encrypted: " + name + " (64.1 MB)\nlayer 2/2 encrypted: " + name + " (64.1 MB)\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	d = progress.New(&out, progress.Options{Quiet: true, Width: columns(80)})
	d.Update(at(0, 64_100_000, true))
	d.Close()
	if out.Len() != 0 {
		t.Errorf("quiet says %q", out.String())
	}
}

// screen plays what is written and returns the lines that a person sees.
func screen(t *testing.T, text string) []string {
	t.Helper()
	lines := []string{""}
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AJ")
			n := 0
			for _, c := range text[2:end] {
				n = n*10 + int(c-'0')
			}
			if text[end] == 'A' {
				if len(lines)-1 < n {
					t.Fatalf("the cursor goes up %d of %d lines", n, len(lines)-1)
				}
				lines = lines[:len(lines)-n]
				lines[len(lines)-1] = ""
			}
			text = text[end+1:]
		case text[0] == '\n':
			lines, text = append(lines, ""), text[1:]
		default:
			r, n := utf8.DecodeRuneInString(text)
			lines[len(lines)-1] += string(r)
			text = text[n:]
		}
	}
	return lines[:len(lines)-1]
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	c := &clock{t: time.Unix(1000, 0)}
	d := progress.New(&out, progress.Options{Now: c.now, Width: columns(80)})
	d.Update(at(0, 0, false))
	c.t = c.t.Add(time.Second)
	d.Update(at(0, 32_050_000, false))
	d.Update(at(1, 6_410_000, false)) // too soon to be drawn
	c.t = c.t.Add(time.Second)
	d.Update(at(1, 12_820_000, false))
	got := strings.Join(screen(t, out.String()), "\n")
	want := `encrypt  abcdef0123ab     [=====>    ]   50 %    32.0 MB of 64.1 MB   16.0 MB/s
encrypt  abcdef0123ab     [==>       ]   20 %    12.8 MB of 64.1 MB   12.8 MB/s
total    0 of 2 layers    [===>      ]   35 %   44.9 MB of 128.2 MB   22.4 MB/s`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	d.Update(at(0, 64_100_000, true))
	if got := screen(t, out.String()); len(got) != 2 || !strings.HasPrefix(got[1], "total    1 of 2 layers") {
		t.Errorf("after the first layer:\n%s", strings.Join(got, "\n"))
	}
	d.Update(at(1, 64_100_000, true))
	d.Close()
	if got := screen(t, out.String()); len(got) != 1 || got[0] != "encrypt: 2 layers, 128.2 MB in 2.0 s (64.1 MB/s)" {
		t.Errorf("in the end:\n%s", strings.Join(got, "\n"))
	}
}

// However narrow a terminal is and whatever is told: no line wraps.
func TestNothingWraps(t *testing.T) {
	for width := 30; width < 200; width += 7 {
		var out bytes.Buffer
		c := &clock{t: time.Unix(1000, 0)}
		d := progress.New(&out, progress.Options{Now: c.now, Width: columns(width)})
		for i := range 20 {
			c.t = c.t.Add(time.Second)
			u := at(i, 1<<60, false)
			u.Verb, u.Name, u.Items, u.Total, u.All = "verifying-at-length", "größer als gedacht", 100000, 1<<62, 1<<62
			d.Update(u)
		}
		for _, l := range screen(t, out.String()) {
			if n := utf8.RuneCountInString(l); n >= width {
				t.Fatalf("%d columns in %d: %q", n, width, l)
			}
		}
		if n := len(screen(t, out.String())); n != 9 {
			t.Fatalf("%d lines for 20 layers", n)
		}
	}
}

// Another verb starts anew, and says what was done before.
func TestNextStep(t *testing.T) {
	var out bytes.Buffer
	c := &clock{t: time.Unix(1000, 0)}
	d := progress.New(&out, progress.Options{Now: c.now, Width: columns(80)})
	for i := range 2 {
		d.Update(at(i, 64_100_000, true))
	}
	u := at(0, 0, false)
	u.Verb, u.Past = "check", "checked"
	c.t = c.t.Add(time.Second)
	d.Update(u)
	got := screen(t, out.String())
	if len(got) != 3 || !strings.HasPrefix(got[0], "encrypt: 2 layers, 128.2 MB") || !strings.HasPrefix(got[1], "check  ") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

func TestConcurrentUpdates(t *testing.T) {
	d := progress.New(new(bytes.Buffer), progress.Options{Width: columns(80)})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 100 {
				d.Update(at(i%2, int64(n), n == 99))
			}
		})
	}
	all.Wait()
	d.Close()
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 64_123_456: "64.1 MB", 1 << 62: "4.6 EB"} {
		if got := progress.Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
