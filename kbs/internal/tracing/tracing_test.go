package tracing

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// receiver is an OTLP/HTTP collector.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*v1.Span
}

func receive(t testing.TB) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		raw, err := io.ReadAll(q.Body)
		var m collector.ExportTraceServiceRequest
		if err != nil || q.URL.Path != "/v1/traces" || proto.Unmarshal(raw, &m) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range m.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				r.spans = append(r.spans, ss.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

func tracer(t testing.TB, endpoint string, share float64) *Tracer {
	t.Helper()
	tr, err := New(t.Context(), Config{Endpoint: endpoint, Ratio: share, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// one is a request with a good and a bad step.
func one(tr *Tracer, header http.Header) *observe.Request {
	r := &observe.Request{HTTP: &http.Request{Method: http.MethodPost, Header: header}, Listener: "guests"}
	ctx := observe.Begin(context.Background(), tr, r)
	_, done := observe.Step(ctx, observe.StepDecode)
	done(nil)
	_, done = observe.Step(ctx, observe.StepEvidence)
	done(fault.Newf(fault.EvidenceInvalid, "measurement is not 2f18"))
	r.Route, r.Operation, r.Platform, r.Status, r.Code, r.Ticket = "POST /kbs/v0/attest", "attest", "snp", 401, fault.EvidenceInvalid, "7QK2-M9TD"
	observe.End(ctx, r)
	return r
}

func attributes(s *v1.Span) map[string]string {
	out := map[string]string{}
	for _, kv := range s.GetAttributes() {
		out[kv.GetKey()] = strings.Trim(strings.SplitN(kv.GetValue().String(), ":", 2)[1], `"`)
	}
	return out
}

func TestSpans(t *testing.T) {
	r := receive(t)
	tr := tracer(t, r.URL, 1)
	// A guest says that its trace is sampled and that we are part of it.
	const theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
	req := one(tr, http.Header{"Traceparent": {"00-" + theirs + "-00f067aa0ba902b7-01"}, "Tracestate": {"evil=" + strings.Repeat("x", 100)}})
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 3 {
		t.Fatalf("%d spans: %v", len(r.spans), r.spans)
	}
	by := map[string]*v1.Span{}
	for _, s := range r.spans {
		by[s.GetName()] = s
	}
	root := by["POST /kbs/v0/attest"]
	if root == nil || len(root.GetParentSpanId()) != 0 || len(root.GetLinks()) != 1 || root.GetLinks()[0].GetTraceState() != "" {
		t.Fatalf("root %v", root)
	}
	hex := func(b []byte) string {
		var out strings.Builder
		for _, x := range b {
			out.WriteString(string("0123456789abcdef"[x>>4]) + string("0123456789abcdef"[x&15]))
		}
		return out.String()
	}
	if hex(root.GetTraceId()) == theirs || hex(root.GetLinks()[0].GetTraceId()) != theirs || hex(root.GetTraceId()) != req.TraceID {
		t.Errorf("trace %s, link %s, request %s", hex(root.GetTraceId()), hex(root.GetLinks()[0].GetTraceId()), req.TraceID)
	}
	for key, want := range map[string]string{"kbs.tee_type": "snp", "kbs.code": "evidence_invalid", "kbs.ticket": "7QK2-M9TD", "kbs.listener": "guests", "http.response.status_code": "401"} {
		if got := attributes(root)[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	for name, want := range map[string]string{"decode": "ok", "evidence": "evidence_invalid"} {
		s := by[name]
		if s == nil || !slices.Equal(s.GetParentSpanId(), root.GetSpanId()) || attributes(s)["verdict"] != want {
			t.Errorf("%s: %v", name, s)
		}
	}
	for _, s := range r.spans {
		if strings.Contains(s.String(), "2f18") || strings.Contains(s.String(), "evil") {
			t.Errorf("a span tells too much: %v", s)
		}
	}
}

// The share is ours to decide, whatever a guest says, and can be changed.
func TestSampling(t *testing.T) {
	r := receive(t)
	tr := tracer(t, r.URL, 0)
	sampled := http.Header{"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}
	for range 20 {
		if q := one(tr, sampled); q.TraceID != "" {
			t.Fatal("a guest had itself traced")
		}
	}
	tr.SetRatio(1)
	one(tr, http.Header{"Traceparent": {"nonsense"}})
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 3 || len(r.spans[2].GetLinks()) != 0 {
		t.Errorf("%d spans", len(r.spans))
	}
}

// A collector that is not there costs spans, not requests.
func TestNoCollector(t *testing.T) {
	r := receive(t)
	r.Close()
	tr := tracer(t, r.URL, 1)
	one(tr, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Close(ctx); err == nil {
		t.Error("spans were delivered to nobody")
	}
}

func BenchmarkNotSampled(b *testing.B) {
	tr := tracer(b, "http://127.0.0.1:1", 0)
	for b.Loop() {
		one(tr, nil)
	}
}
