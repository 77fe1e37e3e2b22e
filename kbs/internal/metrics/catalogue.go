package metrics

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// entry describes one metric for the reference page.
type entry struct {
	name, kind, help string
	labels           []string
}

// catalogue makes the metrics and remembers what it made.
type catalogue struct {
	registry *prometheus.Registry
	entries  []entry
}

func (c *catalogue) note(kind, name, help string, labels []string) {
	c.entries = append(c.entries, entry{name, kind, help, labels})
}

func (c *catalogue) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	c.registry.MustRegister(v)
	c.note("counter", name, help, labels)
	return v
}

func (c *catalogue) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	c.registry.MustRegister(v)
	c.note("gauge", name, help, labels)
	return v
}

func (c *catalogue) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	c.registry.MustRegister(v)
	c.note("histogram", name, help, labels)
	return v
}

// Page is the reference of all metrics, in Markdown.
func Page() string {
	m := New("", Sources{})
	slices.SortFunc(m.entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("# Metrics\n\n" +
		"`/metrics` is on the sockets of `http_server.metrics_sockets` (127.0.0.1:8082), in the Prometheus and OpenMetrics text formats.\n" +
		"No label has a value that a caller chose. A gauge whose source has nothing to tell is absent. Beside these there are the usual\n" +
		"`go_` and `process_` metrics.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, e := range m.entries {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e.name, e.kind, strings.Join(e.labels, ", "), e.help)
	}
	return b.String()
}
