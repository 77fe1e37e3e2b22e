package hub

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/pullmeter"
)

// What a pull does is counted: six layers that are fetched, then found.
func TestPullsAreMetered(t *testing.T) {
	log := new(safeBuffer)
	meter := pullmeter.New(slog.New(slog.NewTextHandler(log, nil)), time.Now)
	w := newWorld(t, func(c *Config) { c.Progress = meter.Observe })
	bundle := w.bundle()
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Fatalf("%v\n%s", err, w.journalText())
	}
	if err := w.pull(); err != nil { // while the first one holds its layers
		t.Fatal(err)
	}
	if _, err := w.hub.PullImage(t.Context(), w.registry.host+"/shop/none:1", w.bundle()); err == nil {
		t.Fatal("nothing was pulled")
	}
	text := meter.Text()
	for _, want := range []string{
		`pulls_total{result="pulled"} 2`, `pulls_total{result="failed"} 1`, `layers_total{result="committed"} 20`, `layers_total{result="cached"} 20`, "pulls_in_flight 0",
	} {
		if !strings.Contains(text, "guest_agent_image_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "received_bytes_total 0\n") || strings.Contains(text, "unpacked_bytes_total 0\n") {
		t.Errorf("no bytes in\n%s", text)
	}
	if !strings.Contains(log.String(), `msg="image pulled" digest=`+w.digest) || strings.Contains(log.String(), w.registry.host) {
		t.Errorf("the log says\n%s", log.String())
	}
}
