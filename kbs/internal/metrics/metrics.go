// Package metrics counts and times what the broker does, for Prometheus.
//
// Names are those of the field's broker where the meaning is the same
// (kbs-protocol 18), so that its dashboards keep working. No label has a value
// that a caller chose: no path, no id, no address. The field's resource_path is
// left out for that reason.
//
// Every metric is made by one of the catalogue's helpers, and the page
// docs/reference/metrics.md is written from the catalogue: what is not on the
// page does not exist.
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// Buckets in seconds: from a cached token to a verification with a fetch.
var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// Buckets in bytes: from a challenge to evidence with several devices.
var sizes = prometheus.ExponentialBuckets(256, 4, 9)

// Metrics is the broker's own registry. It is an [observe.Watcher].
type Metrics struct {
	catalogue

	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	received    *prometheus.HistogramVec
	sent        *prometheus.HistogramVec
	connections *prometheus.GaugeVec

	resources   map[string]prometheus.Counter // by operation
	auth        outcomes
	attestation struct {
		requests, errors    prometheus.Counter
		successes, failures *prometheus.CounterVec
		outcomes            *prometheus.CounterVec
	}
	policy struct{ evaluations, approvals, violations, errors prometheus.Counter }
	plugin struct {
		requests, errors *prometheus.CounterVec
		duration         *prometheus.HistogramVec
	}
	releases *prometheus.CounterVec
	steps    map[string]prometheus.Observer
	shed     *prometheus.CounterVec
	store    *prometheus.HistogramVec
	storeBad *prometheus.CounterVec
	reloads  *prometheus.CounterVec
}

type outcomes struct{ requests, successes, errors prometheus.Counter }

// New returns the metrics of a broker. What cannot be counted as it happens is
// asked of the sources at each scrape.
func New(version string, s Sources) *Metrics {
	m := &Metrics{catalogue: catalogue{registry: prometheus.NewRegistry()}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.gauge("kbs_build_info", "The build; always 1.", "version", "go_version").WithLabelValues(version, runtime.Version()).Set(1)
	m.http()
	m.field()
	m.own()
	m.sources(s)
	return m
}

func (m *Metrics) http() {
	m.requests = m.counter("kbs_http_requests_total", "HTTP requests, by route and status.", "listener", "route", "code")
	m.duration = m.histogram("kbs_http_request_duration_seconds", "Time from a request's head to its answer.", seconds, "listener", "route")
	m.received = m.histogram("kbs_http_request_size_bytes", "Sizes of request bodies.", sizes, "listener")
	m.sent = m.histogram("kbs_http_response_size_bytes", "Sizes of answers.", sizes, "listener")
	m.connections = m.gauge("kbs_http_active_connections", "Open connections.", "listener")
}

// field has the other names of the field's broker.
func (m *Metrics) field() {
	one := func(name, help string) prometheus.Counter { return m.counter(name, help).WithLabelValues() }
	m.resources = map[string]prometheus.Counter{}
	for _, r := range []struct {
		name, help string
		operations []string
	}{
		{"kbs_resource_reads_total", "Resources released to guests.", []string{"getResource"}},
		{"kbs_resource_writes_total", "Resources written by administrators.", []string{"putResource", "v0PutResource"}},
		{"kbs_resource_deletes_total", "Resources deleted by administrators.", []string{"deleteResource", "v0DeleteResource"}},
	} {
		c := one(r.name, r.help)
		for _, o := range r.operations {
			m.resources[o] = c
		}
	}
	m.auth = outcomes{
		one("kbs_auth_requests_total", "Handshakes that guests tried to open."),
		one("kbs_auth_successes_total", "Handshakes that were opened."),
		one("kbs_auth_errors_total", "Handshakes that were not opened."),
	}
	a := &m.attestation
	a.requests = one("kbs_attestation_requests_total", "Answers to challenges.")
	a.errors = one("kbs_attestation_errors_total", "Answers that could not be judged, for a fault of the broker's or too much load.")
	a.successes = m.counter("kbs_attestation_successes_total", "Answers that earned a token.", "tee_type")
	a.failures = m.counter("kbs_attestation_failures_total", "Answers that were refused.", "tee_type")
	p := &m.policy
	p.evaluations = one("kbs_policy_evaluations_total", "Evaluations of resource policies.")
	p.approvals = one("kbs_policy_approvals_total", "Evaluations that allowed a release.")
	p.violations = one("kbs_policy_violations_total", "Evaluations that denied a release.")
	p.errors = one("kbs_policy_errors_total", "Evaluations that failed.")
	m.plugin.requests = m.counter("kbs_plugin_requests_total", "Requests to plugins.", "plugin_name")
	m.plugin.errors = m.counter("kbs_plugin_errors_total", "Requests to plugins that failed.", "plugin_name")
	m.plugin.duration = m.histogram("kbs_plugin_request_duration_seconds", "Time of requests to plugins.", seconds, "plugin_name")
}

// own has what the field does not count.
func (m *Metrics) own() {
	m.attestation.outcomes = m.counter("kbs_attestation_outcomes_total", "Answers to challenges by platform and code; ok is a token.", "tee_type", "code")
	m.releases = m.counter("kbs_release_decisions_total", "Requests for resources, by decision (allow, deny, error) and code.", "decision", "code")
	steps := m.histogram("kbs_step_duration_seconds", "Time of each step of an attestation or a release.", seconds, "step")
	m.steps = map[string]prometheus.Observer{}
	for _, name := range observe.Steps() {
		m.steps[name] = steps.WithLabelValues(name)
	}
	m.shed = m.counter("kbs_shed_requests_total", "Requests refused to protect the others, by reason; with the reason explanation, denials that were left unexplained.", "reason")
	m.store = m.histogram("kbs_store_duration_seconds", "Time of transactions of the store.", seconds, "operation")
	m.storeBad = m.counter("kbs_store_errors_total", "Transactions that failed for a reason of the engine's.", "operation")
	m.reloads = m.counter("kbs_reloads_total", "Reloads of configuration and certificates, by what and outcome.", "what", "outcome")
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Begin implements [observe.Watcher].
func (m *Metrics) Begin(ctx context.Context, _ *observe.Request) context.Context { return ctx }

// Step implements [observe.Watcher].
func (m *Metrics) Step(ctx context.Context, _ *observe.Request, name string) (context.Context, func(error)) {
	start := time.Now() // durations want the monotonic clock
	return ctx, func(err error) {
		if o := m.steps[name]; o != nil {
			o.Observe(time.Since(start).Seconds())
		}
		if name == observe.StepAuthorize {
			m.decided(err)
		}
	}
}

func (m *Metrics) decided(err error) {
	m.policy.evaluations.Inc()
	switch {
	case err == nil:
		m.policy.approvals.Inc()
	case fault.CodeOf(err) == fault.PolicyDenied:
		m.policy.violations.Inc()
	default:
		m.policy.errors.Inc()
	}
}

// End implements [observe.Watcher].
func (m *Metrics) End(_ context.Context, r *observe.Request) {
	route := r.Route
	if route == "" {
		route = "none" // refused before it came to any
	}
	m.requests.WithLabelValues(r.Listener, route, strconv.Itoa(r.Status)).Inc()
	m.duration.WithLabelValues(r.Listener, route).Observe(r.Duration.Seconds())
	m.received.WithLabelValues(r.Listener).Observe(float64(r.Received))
	m.sent.WithLabelValues(r.Listener).Observe(float64(r.Sent))
	if c := m.resources[r.Operation]; c != nil && r.Status < 300 {
		c.Inc()
	}
	switch r.Operation {
	case "auth":
		m.opened(r)
	case "attest":
		m.attested(r)
	case "getResource":
		m.released(r)
		m.plugged(r)
	case "v0PutResource", "v0DeleteResource":
		m.plugged(r)
	}
}

func (m *Metrics) opened(r *observe.Request) {
	m.auth.requests.Inc()
	if r.Status < 300 {
		m.auth.successes.Inc()
	} else {
		m.auth.errors.Inc()
	}
}

func (m *Metrics) attested(r *observe.Request) {
	platform := r.Platform
	if platform == "" {
		platform = "unknown"
	}
	a := &m.attestation
	a.requests.Inc()
	a.outcomes.WithLabelValues(platform, codeOf(r)).Inc()
	switch decision(r) {
	case "allow":
		a.successes.WithLabelValues(platform).Inc()
	case "deny":
		a.failures.WithLabelValues(platform).Inc()
	default:
		a.errors.Inc()
	}
}

func (m *Metrics) released(r *observe.Request) {
	m.releases.WithLabelValues(decision(r), codeOf(r)).Inc()
}

func (m *Metrics) plugged(r *observe.Request) {
	const plugin = "resource"
	m.plugin.requests.WithLabelValues(plugin).Inc()
	m.plugin.duration.WithLabelValues(plugin).Observe(r.Duration.Seconds())
	if r.Status >= 300 {
		m.plugin.errors.WithLabelValues(plugin).Inc()
	}
}

func codeOf(r *observe.Request) string {
	if r.Code == "" {
		return "ok"
	}
	return string(r.Code)
}

// decision tells a refusal from a failure of ours.
func decision(r *observe.Request) string {
	switch {
	case r.Status < 300:
		return "allow"
	case r.Status >= 500 || r.Status == http.StatusTooManyRequests:
		return "error"
	default:
		return "deny"
	}
}

// Shed counts a request that was refused to protect the others.
func (m *Metrics) Shed(reason string) { m.shed.WithLabelValues(reason).Inc() }

// Reloaded counts a reload.
func (m *Metrics) Reloaded(what string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.reloads.WithLabelValues(what, outcome).Inc()
}

// Connection follows the state of a listener's connections, as
// http.Server.ConnState calls it.
func (m *Metrics) Connection(listener string, by float64) {
	m.connections.WithLabelValues(listener).Add(by)
}
