package metrics

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestSources(t *testing.T) {
	asked := 0
	m := New("v1", Sources{
		AuditEntries: func(context.Context) ([]Sample, error) { asked++; return One(7), nil },
		Ready:        func(context.Context) ([]Sample, error) { return nil, errors.New("no") },
		ReferenceValues: func(context.Context) ([]Sample, error) {
			return []Sample{{1, []string{"valid"}}, {2, []string{"expired"}}}, nil
		},
	})
	text := scrape(t, m)
	for _, want := range []string{"kbs_audit_entries 7\n", `kbs_reference_values{state="expired"} 2`} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s", want)
		}
	}
	if strings.Contains(text, "kbs_ready") {
		t.Error("a source that failed told something")
	}
	if scrape(t, m); asked != 1 {
		t.Errorf("asked %d times for two scrapes in a row", asked)
	}
}

func TestVerdicts(t *testing.T) {
	m := New("v1", Sources{})
	for _, err := range []error{nil, nil, fault.New(fault.PolicyDenied, nil), fault.New(fault.PolicyError, nil)} {
		_, done := m.Step(t.Context(), nil, observe.StepAuthorize)
		done(err)
	}
	_, done := m.Step(t.Context(), nil, "unknown step")
	done(nil)
	m.End(t.Context(), &observe.Request{Operation: "attest", Status: 503, Code: fault.Unavailable})
	m.End(t.Context(), &observe.Request{Operation: "attest", Status: 429, Code: fault.TooMany})
	m.Shed("queue_full")
	m.Reloaded("certificate", errors.New("x"))
	m.Connection("guests", 1)
	text := scrape(t, m)
	for _, want := range []string{
		"kbs_policy_evaluations_total 4\n", "kbs_policy_approvals_total 2\n", "kbs_policy_violations_total 1\n", "kbs_policy_errors_total 1\n",
		"kbs_attestation_errors_total 2\n", `kbs_attestation_outcomes_total{code="unavailable",tee_type="unknown"} 1`,
		`kbs_http_requests_total{code="503",listener="",route="none"} 1`, `kbs_shed_requests_total{reason="queue_full"} 1`,
		`kbs_reloads_total{outcome="failed",what="certificate"} 1`, `kbs_http_active_connections{listener="guests"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s", want)
		}
	}
}

type gone struct{ store.Store }

func (gone) View(context.Context, func(store.Tx) error) error {
	return store.Unavailable(errors.New("x"))
}

func TestStore(t *testing.T) {
	m := New("v1", Sources{})
	if err := m.Store(gone{}).View(t.Context(), nil); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	if text := scrape(t, m); !strings.Contains(text, `kbs_store_errors_total{operation="view"} 1`) || !strings.Contains(text, `kbs_store_duration_seconds_count{operation="view"} 1`) {
		t.Error(text)
	}
}

// What a request costs to count, beside some hundred microseconds of work.
func BenchmarkRequest(b *testing.B) {
	m := New("v1", Sources{})
	b.ReportAllocs()
	for b.Loop() {
		r := &observe.Request{Listener: "guests", Operation: "getResource", Route: "GET /x", Status: 200, Duration: time.Millisecond}
		ctx := observe.Begin(b.Context(), m, r)
		for range 5 {
			_, done := observe.Step(ctx, observe.StepSeal)
			done(nil)
		}
		observe.End(ctx, r)
	}
}
