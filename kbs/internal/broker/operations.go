package broker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/sink"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/health"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/metrics"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tracing"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
)

// operations are the rooms for the broker's operator. Their checks and sources
// look at the other rooms when they are asked, so they come first.
type operations struct {
	metrics      *metrics.Metrics
	tracer       *tracing.Tracer // nil without a collector
	watcher      observe.Watcher
	probes       *health.Probes
	lists        atomic.Pointer[[]dated] // that the configuration names
	published    *collateral.Store       // nil where collateral is not enabled
	replaceables []*replaceable
	current      atomic.Pointer[config.Loaded] // in force, after any reloads
	guard        *limit.Guard
	gate         *limit.Gate
	explaining   *limit.Gate // of denied releases
}

// serving is what every tenant's server gets of it.
func (s *shared) serving() server.Operations {
	return server.Operations{
		Watcher: s.watcher, Probes: s.probes, Metrics: s.metrics.Handler(), GuestMetrics: s.cfg.HTTPServer.InsecureGuestMetrics,
		Guard: s.guard, Explaining: s.explaining, BodyRate: s.cfg.Limits.BodyBytesPerSecond,
	}
}

func (b *Broker) openOperations(ctx context.Context) (err error) {
	b.current.Store(&config.Loaded{Config: b.cfg, Files: b.Files})
	b.probes = health.New(b.Now, b.Logger, b.checks()...)
	b.metrics = metrics.New(b.Version, metrics.Sources{
		AuditEntries:      func(ctx context.Context) ([]metrics.Sample, error) { return one(b.audit.Size(ctx)) },
		AuditSinkLag:      b.sinkGauge(func(s sink.Status) float64 { return float64(s.Entries) }),
		AuditSinkAge:      b.sinkGauge(func(s sink.Status) float64 { return s.Age.Seconds() }),
		SigningKeyAge:     b.signingKeyAge,
		CollateralExpiry:  b.collateralGauge(func(c dated) float64 { return float64(c.ends.Unix()) }),
		CollateralAge:     b.collateralGauge(func(c dated) float64 { return b.Now().Sub(c.issued).Seconds() }),
		ReferenceValues:   b.referenceValues,
		CertificateExpiry: b.certificateExpiry,
		Ready:             b.readiness,
		AttestRunning: func(context.Context) ([]metrics.Sample, error) {
			running, _ := b.gate.Load()
			return metrics.One(float64(running)), nil
		},
		AttestWaiting: func(context.Context) ([]metrics.Sample, error) {
			_, waiting := b.gate.Load()
			return metrics.One(float64(waiting)), nil
		},
	})
	b.guard = limit.NewGuard(rates(b.cfg.Limits), b.Now, b.metrics.Shed)
	b.gate = limit.NewGate(width(b.cfg.Limits), b.metrics.Shed)
	b.explaining = limit.NewGate(explaining(b.cfg.Limits), func(string) { b.metrics.Shed("explanation") })
	b.watcher = b.metrics
	if c := b.cfg.Tracing; c.Endpoint != "" {
		b.tracer, err = tracing.New(ctx, tracing.Config{Endpoint: c.Endpoint, Ratio: c.SampleRatio, Version: b.Version, Logger: b.Logger})
		b.watcher = observe.Both(b.metrics, b.tracer)
	}
	return err
}

func one[T int | int64](n T, err error) ([]metrics.Sample, error) {
	return metrics.One(float64(n)), err
}

// checks are what must work for the broker to serve, of the tenant that always
// exists where they belong to one.
func (b *Broker) checks() []health.Check {
	return []health.Check{
		{Name: "store", Run: b.checkStore},
		{Name: "master-key", Run: func(ctx context.Context) error { return kek.Try(ctx, b.kek) }},
		{Name: "token-key", Run: b.checkTokenKey},
		{Name: "policies", Run: b.checkPolicies},
		{Name: "audit-log", Run: func(ctx context.Context) error {
			_, err := b.audit.Size(ctx)
			return err
		}},
		{Name: "audit-sinks", Run: func(context.Context) error { return b.sinks.Behind() }},
		{Name: "collateral", Run: b.checkCollateral, Advisory: true},
		{Name: "clock", Run: clockCheck(b.Now), Advisory: true},
	}
}

func (b *Broker) checkStore(ctx context.Context) error {
	err := b.store.View(ctx, func(tx store.Tx) error {
		_, err := tx.Get("probe")
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// checkTokenKey signs a token for nobody and verifies it.
func (b *Broker) checkTokenKey(ctx context.Context) error {
	d := b.home.deps
	text, _, err := d.Issuer.Issue(ctx, "probe", nil)
	if err != nil {
		return err
	}
	_, err = d.Tokens.Verify(ctx, text)
	return err
}

func (b *Broker) checkPolicies(ctx context.Context) error {
	name, err := b.home.deps.Engine.Missing(ctx, policy.Defaults()...)
	if err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	return nil
}

// clockSlack is how far the wall clock may drift from the time that passed.
const clockSlack = time.Minute

// clockCheck notices a wall clock that was set: tokens, certificates and
// expiries go by it.
func clockCheck(now func() time.Time) func(context.Context) error {
	wall, start := now().Round(0), time.Now()
	return func(context.Context) error {
		drift := now().Round(0).Sub(wall) - time.Since(start)
		if drift.Abs() > clockSlack {
			return fmt.Errorf("the clock was set by %s since the start", drift.Round(time.Second))
		}
		return nil
	}
}

// sinkGauge tells of the sinks that the configuration names.
func (b *Broker) sinkGauge(of func(sink.Status) float64) metrics.Source {
	return func(context.Context) ([]metrics.Sample, error) {
		var out []metrics.Sample
		for _, s := range b.sinks.Status() {
			out = append(out, metrics.Sample{Value: of(s), Labels: []string{s.Name}})
		}
		return out, nil
	}
}

func (b *Broker) signingKeyAge(ctx context.Context) ([]metrics.Sample, error) {
	keys, err := b.home.deps.TokenKeys.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys.Items {
		if k.State == "current" {
			return metrics.One(b.Now().Sub(k.Since).Seconds()), nil
		}
	}
	return nil, nil
}

// referenceValues counts those of the tenant "default": names of tenants are
// no labels.
func (b *Broker) referenceValues(ctx context.Context) ([]metrics.Sample, error) {
	all, err := b.home.deps.RefValues.List(ctx, "")
	if err != nil {
		return nil, err
	}
	count := map[string]float64{"valid": 0, "near_expiry": 0, "expired": 0}
	now, soon := b.Now(), b.Now().Add(b.cfg.Metrics.NearExpiry())
	for _, v := range all {
		switch {
		case !now.Before(v.Expires):
			count["expired"]++
		case !soon.Before(v.Expires):
			count["near_expiry"]++
		default:
			count["valid"]++
		}
	}
	return labelled(count), nil
}

func (b *Broker) readiness(ctx context.Context) ([]metrics.Sample, error) {
	results, _ := b.probes.Ready(ctx)
	count := map[string]float64{}
	for _, r := range results {
		count[r.Name] = 0
		if r.OK {
			count[r.Name] = 1
		}
	}
	return labelled(count), nil
}

func labelled(values map[string]float64) []metrics.Sample {
	var out []metrics.Sample
	for label, v := range values {
		out = append(out, metrics.Sample{Value: v, Labels: []string{label}})
	}
	return out
}
