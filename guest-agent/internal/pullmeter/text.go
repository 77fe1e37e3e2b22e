package pullmeter

import (
	"fmt"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/pull"
)

// The phases that metrics tell of, always all of them, so that a series does not
// begin in the middle.
var (
	imagePhases = []pull.Phase{pull.PhaseResolving, pull.PhaseJudging, pull.PhaseAccepted}
	layerPhases = []pull.Phase{pull.PhaseKey, pull.PhaseFetching}
)

// Text returns the metrics in the Prometheus text format, as GetMetrics of the
// Kata agent protocol returns them.
func (m *Meter) Text() string {
	t, pulls, layers := m.snapshot()
	var b strings.Builder
	head := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP guest_agent_image_%s %s\n# TYPE guest_agent_image_%s %s\n", name, help, name, kind)
	}
	value := func(name, labels string, v any) { fmt.Fprintf(&b, "guest_agent_image_%s%s %v\n", name, labels, v) }
	seconds := func(name string, label string, phases []pull.Phase, of map[pull.Phase]time.Duration) {
		for _, p := range phases {
			value(name, fmt.Sprintf("{of=%q,phase=%q}", label, p), of[p].Seconds())
		}
	}

	head("pulls_total", "counter", "Image pulls, by how they ended.")
	for _, p := range []pull.Phase{pull.PhasePulled, pull.PhaseFailed} {
		value("pulls_total", fmt.Sprintf("{result=%q}", p), t.pulls[p])
	}
	head("pulls_in_flight", "gauge", "Image pulls under way.")
	value("pulls_in_flight", "", pulls)
	head("layers_total", "counter", "Layers, by how they were had.")
	for _, p := range []pull.Phase{pull.PhaseCommitted, pull.PhaseCached, pull.PhaseFailed} {
		value("layers_total", fmt.Sprintf("{result=%q}", p), t.layers[p])
	}
	head("layers_in_flight", "gauge", "Layers under way.")
	value("layers_in_flight", "", layers)
	head("received_bytes_total", "counter", "Bytes of layers received from registries.")
	value("received_bytes_total", "", t.received)
	head("unpacked_bytes_total", "counter", "Bytes of layers' archives unpacked.")
	value("unpacked_bytes_total", "", t.unpacked)
	head("phase_seconds_total", "counter", "Time in each phase, of pulls (the last is that of all their layers) and of layers.")
	seconds("phase_seconds_total", "pull", imagePhases, t.image)
	seconds("phase_seconds_total", "layer", layerPhases, t.layer)
	return b.String()
}
