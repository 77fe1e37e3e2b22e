package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// askWithin limits what all sources of one scrape may take together.
const askWithin = 5 * time.Second

// keep is how long the answers are used again: what is asked for may mean a
// walk through the store.
const keep = 15 * time.Second

// Sample is one value of a gauge, with the values of its labels.
type Sample struct {
	Value  float64
	Labels []string
}

// Source asks for the values of one gauge now. Nothing means that there is
// nothing to tell; so does an error, which the next readiness probe shows.
type Source func(ctx context.Context) ([]Sample, error)

// Sources answer what can only be asked. Nil ones tell nothing.
type Sources struct {
	AuditEntries      Source // one value
	AuditSinkLag      Source // by sink, entries
	AuditSinkAge      Source // by sink, seconds
	SigningKeyAge     Source // one value, seconds
	CollateralExpiry  Source // by platform and collateral, Unix time
	CollateralAge     Source // by platform and collateral, seconds
	ReferenceValues   Source // by state: valid, near_expiry, expired
	CertificateExpiry Source // one value, Unix time
	AttestRunning     Source // one value
	AttestWaiting     Source // one value
	Ready             Source // by check, 0 or 1
}

// asked is a collector of one gauge.
type asked struct {
	desc *prometheus.Desc
	ask  Source

	mu   sync.Mutex
	at   time.Time
	last []Sample
}

func (m *Metrics) sources(s Sources) {
	for _, x := range []struct {
		name, help string
		ask        Source
		labels     []string
	}{
		{"kbs_audit_entries", "Entries of the audit log.", s.AuditEntries, nil},
		{"kbs_audit_sink_lag_entries", "Entries that a sink has not confirmed yet.", s.AuditSinkLag, []string{"sink"}},
		{"kbs_audit_sink_lag_seconds", "Age of the oldest entry that a sink has not confirmed.", s.AuditSinkAge, []string{"sink"}},
		{"kbs_signing_key_age_seconds", "Age of the key that signs attestation tokens.", s.SigningKeyAge, nil},
		{"kbs_collateral_expiry_timestamp_seconds", "When revocation lists and other collateral end.", s.CollateralExpiry, []string{"tee_type", "collateral"}},
		{"kbs_collateral_age_seconds", "How long ago collateral was issued.", s.CollateralAge, []string{"tee_type", "collateral"}},
		{"kbs_reference_values", "Reference values by state: valid, near_expiry, expired.", s.ReferenceValues, []string{"state"}},
		{"kbs_tls_certificate_expiry_timestamp_seconds", "When the TLS certificate ends.", s.CertificateExpiry, nil},
		{"kbs_attest_running", "Verifications that run now.", s.AttestRunning, nil},
		{"kbs_attest_waiting", "Verifications that wait for their turn.", s.AttestWaiting, nil},
		{"kbs_ready", "Outcome of each check of readiness: 1 is good.", s.Ready, []string{"check"}},
	} {
		m.note("gauge", x.name, x.help, x.labels)
		if x.ask != nil {
			m.registry.MustRegister(&asked{desc: prometheus.NewDesc(x.name, x.help, x.labels, nil), ask: x.ask})
		}
	}
}

// Describe implements prometheus.Collector.
func (a *asked) Describe(out chan<- *prometheus.Desc) { out <- a.desc }

// Collect implements prometheus.Collector.
func (a *asked) Collect(out chan<- prometheus.Metric) {
	for _, s := range a.samples() {
		out <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, s.Value, s.Labels...)
	}
}

func (a *asked) samples() []Sample {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsZero() && time.Since(a.at) < keep {
		return a.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	samples, err := a.ask(ctx)
	if err != nil {
		return nil
	}
	a.at, a.last = time.Now(), samples
	return samples
}

// One is the answer of a source that has a single value.
func One(v float64) []Sample { return []Sample{{Value: v}} }
