// Package tracing sends OpenTelemetry traces of requests to a collector
// (OTLP/HTTP): a root span for each request that is sampled, and below it a
// span for each step with its verdict.
//
// Guests may send a traceparent. It is the word of somebody on a machine that
// nobody here trusts, so it decides nothing: a request always begins a trace
// of its own and is sampled by our own decision, and what the guest said
// becomes a link. Spans tell routes, platforms, codes and tickets, and no path,
// no claim and no reference value.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// flushWithin limits how long the end of a broker waits for a collector.
const flushWithin = 5 * time.Second

// Config of a tracer.
type Config struct {
	Endpoint string  // base address of the collector
	Ratio    float64 // share of requests that are sampled
	Version  string
	Logger   *slog.Logger
}

// Tracer is an [observe.Watcher].
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	ratio    *ratio
}

// New starts a tracer. A collector that cannot be reached costs spans and
// nothing else. Errors of the exporter go to the logger, for the whole process:
// the library knows only one place for them.
func New(ctx context.Context, c Config) (*Tracer, error) {
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(c.Endpoint, "/")+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		c.Logger.Warn("traces were not delivered", slog.String("event_id", "tracing.failed"), slog.Any("error", err))
	}))
	return start(c, sdk.WithBatcher(exporter)), nil
}

func start(c Config, to sdk.TracerProviderOption) *Tracer {
	t := &Tracer{ratio: &ratio{}}
	t.SetRatio(c.Ratio)
	t.provider = sdk.NewTracerProvider(to, sdk.WithSampler(t.ratio), sdk.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "kbs"), attribute.String("service.version", c.Version),
	)))
	t.tracer = t.provider.Tracer("github.com/vouchsafe-cc/vouchsafe/kbs")
	return t
}

// SetRatio changes the share of requests that are sampled.
func (t *Tracer) SetRatio(share float64) {
	s := sdk.TraceIDRatioBased(share)
	t.ratio.now.Store(&s)
}

// Close sends what is left, and waits no longer than some seconds for it.
func (t *Tracer) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// ratio is a sampler that can be changed.
type ratio struct{ now atomic.Pointer[sdk.Sampler] }

// ShouldSample implements the SDK's Sampler: roots are drawn, and everything
// below a root goes with it.
func (r *ratio) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if parent := trace.SpanContextFromContext(p.ParentContext); parent.IsValid() {
		if parent.IsSampled() {
			return sdk.AlwaysSample().ShouldSample(p)
		}
		return sdk.NeverSample().ShouldSample(p)
	}
	return (*r.now.Load()).ShouldSample(p)
}

// Description implements the SDK's Sampler.
func (r *ratio) Description() string { return (*r.now.Load()).Description() }

// Begin implements [observe.Watcher].
func (t *Tracer) Begin(ctx context.Context, r *observe.Request) context.Context {
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer)}
	if link, ok := claimed(r.HTTP); ok {
		options = append(options, trace.WithLinks(link))
	}
	ctx, span := t.tracer.Start(ctx, "request", options...)
	if sc := span.SpanContext(); sc.IsSampled() {
		r.TraceID = sc.TraceID().String()
	}
	return ctx
}

// claimed is the span that a caller says it comes from.
func claimed(r *http.Request) (trace.Link, bool) {
	if r == nil || r.Header.Get("traceparent") == "" {
		return trace.Link{}, false
	}
	// The parser of the library is strict; tracestate, which could be long and
	// is anybody's text, is not looked at.
	carrier := propagation.MapCarrier{"traceparent": r.Header.Get("traceparent")}
	sc := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
	return trace.Link{SpanContext: sc, Attributes: []attribute.KeyValue{attribute.Bool("untrusted", true)}}, sc.IsValid()
}

// Step implements [observe.Watcher].
func (t *Tracer) Step(ctx context.Context, _ *observe.Request, name string) (context.Context, func(error)) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, func(err error) {
		verdict := observe.Verdict(err)
		span.SetAttributes(attribute.String("verdict", verdict))
		if err != nil {
			span.SetStatus(codes.Error, verdict) // the cause is under the ticket
		}
		span.End()
	}
}

// End implements [observe.Watcher].
func (t *Tracer) End(ctx context.Context, r *observe.Request) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if r.Route != "" {
		span.SetName(r.Route)
	}
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", r.HTTP.Method), attribute.String("http.route", r.Route),
		attribute.Int("http.response.status_code", r.Status), attribute.String("kbs.listener", r.Listener),
	}
	for key, value := range map[string]string{
		"kbs.operation": r.Operation, "kbs.tee_type": r.Platform, "kbs.code": string(r.Code), "kbs.ticket": string(r.Ticket),
	} {
		if value != "" {
			attributes = append(attributes, attribute.String(key, value))
		}
	}
	span.SetAttributes(attributes...)
	if r.Status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, string(r.Code))
	}
	span.End()
}
