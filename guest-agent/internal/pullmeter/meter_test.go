package pullmeter

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/pull"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newMeter() (*Meter, *clock, *bytes.Buffer) {
	c := &clock{t: time.Unix(1000, 0)}
	out := new(bytes.Buffer)
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}
	return New(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: drop})), c.now), c, out
}

// Two pulls of the same reference at once: one fetches, the other finds what the
// first one made.
func TestMeter(t *testing.T) {
	m, c, out := newMeter()
	image := func(n int64, p pull.Phase, total int64) {
		m.Observe(pull.Event{Pull: n, Reference: "registry.test/private/name:1", Phase: p, Layer: -1, Layers: 2, Digest: "sha256:d", Total: total})
	}
	layer := func(n int64, i int, p pull.Phase, got, unpacked int64) {
		m.Observe(pull.Event{Pull: n, Reference: "registry.test/private/name:1", Phase: p, Layer: i, Layers: 2, Bytes: got, Unpacked: unpacked, Total: 50})
	}
	for n := range int64(2) {
		image(n+1, pull.PhaseResolving, 0)
		c.add(time.Second)
		image(n+1, pull.PhaseJudging, 0)
		c.add(2 * time.Second)
		image(n+1, pull.PhaseAccepted, 100)
	}
	layer(1, 0, pull.PhaseKey, 0, 0)
	c.add(time.Second)
	layer(1, 0, pull.PhaseFetching, 0, 0)
	layer(1, 1, pull.PhaseFetching, 0, 0)
	layer(1, 0, pull.PhaseFetching, 20, 30)
	if text := m.Text(); !strings.Contains(text, "guest_agent_image_pulls_in_flight 2\n") || !strings.Contains(text, "guest_agent_image_layers_in_flight 2\n") {
		t.Errorf("on the way:\n%s", text)
	}
	c.add(11 * time.Second)
	layer(1, 0, pull.PhaseFetching, 40, 60) // long enough for a word in the log
	layer(1, 0, pull.PhaseCommitted, 50, 80)
	layer(1, 1, pull.PhaseCommitted, 50, 70)
	image(1, pull.PhasePulled, 100)
	layer(2, 0, pull.PhaseCached, 0, 0)
	m.Observe(pull.Event{Pull: 2, Phase: pull.PhaseFailed, Layer: 1, Err: errors.New("what nobody shall see")})
	m.Observe(pull.Event{Pull: 2, Phase: pull.PhaseFailed, Layer: -1, Err: errors.New("what nobody shall see")})

	text := m.Text()
	for _, want := range []string{
		`pulls_total{result="pulled"} 1`, `pulls_total{result="failed"} 1`, "pulls_in_flight 0", "layers_in_flight 0",
		`layers_total{result="committed"} 2`, `layers_total{result="cached"} 1`, `layers_total{result="failed"} 1`,
		"received_bytes_total 100", "unpacked_bytes_total 150",
		`phase_seconds_total{of="pull",phase="resolving"} 2`, `phase_seconds_total{of="pull",phase="judging"} 4`, `phase_seconds_total{of="pull",phase="accepted"} 27`,
		`phase_seconds_total{of="layer",phase="key"} 1`, `phase_seconds_total{of="layer",phase="fetching"} 22`,
	} {
		if !strings.Contains(text, "guest_agent_image_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	log := out.String()
	for _, want := range []string{
		`msg="image pull begins" digest=sha256:d layers=2 bytes=100`,
		`msg="image pull goes on" layers=2 cached=0 received=40 bytes=100 seconds=18 bytes_per_second=2`,
		`msg="image pulled" digest=sha256:d layers=2 cached=0 received=100 bytes=100 seconds=18 bytes_per_second=5`,
		`msg="image pull failed" layers=2 cached=1 received=0`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
	if all := log + text; strings.Contains(all, "private") || strings.Contains(all, "nobody") {
		t.Error("a name or a reason shows")
	}
}

func TestConcurrentPulls(t *testing.T) {
	m, _, _ := newMeter()
	var all sync.WaitGroup
	for n := range int64(8) {
		all.Go(func() {
			for i := range 50 {
				m.Observe(pull.Event{Pull: n, Layer: i % 3, Phase: pull.PhaseFetching, Bytes: int64(i)})
				_ = m.Text()
			}
			m.Observe(pull.Event{Pull: n, Layer: -1, Phase: pull.PhasePulled})
		})
	}
	all.Wait()
	if text := m.Text(); !strings.Contains(text, "in_flight 0\n") || !strings.Contains(text, `{result="pulled"} 8`) {
		t.Errorf("%s", text)
	}
}
