package asapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
)

// stuck never ends a call before its context does.
type stuck struct{}

func (stuck) Evaluate(ctx context.Context, _ attestation.Evaluation) (string, error) {
	<-ctx.Done()
	return "", fault.New(fault.Unavailable, ctx.Err())
}

func (stuck) Challenge(context.Context, string, string) (string, error) { panic("of a handler") }

func service(e Evaluator) *Service {
	return New(Config{
		Evaluator: e, Admin: http.NotFoundHandler(),
		KeySet:   func(context.Context) (api.KeySet, error) { return api.KeySet{}, errors.New("the store's secret") },
		Limits:   Limits{Message: 1 << 10, Time: time.Minute, Concurrency: 2, Queue: 2},
		Listener: "test", BodyRate: 1 << 20, Shed: func(string) {},
		Guard: limit.NewGuard(limit.Rates{Burst: time.Second, Addresses: 16}, time.Now, func(string) {}),
	})
}

// Calls beyond the limit wait, and for no longer than one call may take.
func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(stuck{})
		codes := make(chan fault.Code, 5)
		for range cap(codes) {
			go func() {
				_, err := s.evaluate(t.Context(), attestation.Evaluation{}, nil)
				f, _ := errors.AsType[*fault.Fault](err)
				codes <- f.Code
			}()
		}
		synctest.Wait()
		if running, waiting := s.gate.Load(); running != 2 || waiting != 2 {
			t.Errorf("%d calls are running, and %d wait", running, waiting)
		}
		start, seen := time.Now(), map[fault.Code]int{}
		for range cap(codes) {
			seen[<-codes]++
		}
		if seen[fault.Unavailable] != 5 || time.Since(start) > time.Minute {
			t.Errorf("%v after %s", seen, time.Since(start))
		}
	})
}

// What goes wrong on our side says so and no more, and ends no process.
func TestFailuresTellNothing(t *testing.T) {
	logged := &strings.Builder{}
	h := service(stuck{}).REST(slog.New(slog.NewTextHandler(logged, nil)))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, api.PathJWKS, nil))
	if w.Code != http.StatusInternalServerError || w.Body.String() != "internal" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/policy", strings.NewReader(`{"policy_id":"`+strings.Repeat("x", 2<<10)+`"}`)))
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) || !strings.Contains(logged.String(), "of a handler") {
			t.Errorf("panic %v, log %s", err, logged)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/challenge", strings.NewReader(`{"tee":"snp"}`)))
}
