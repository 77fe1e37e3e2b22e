package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// varied appends n entries, a minute apart, of which every one can be told.
func (w *world) varied(t *testing.T, n int) {
	t.Helper()
	at := clock
	log := &Log{st: w.st, keeper: w.log.keeper, mac: w.log.mac, now: func() time.Time { return at }, wake: make(chan struct{}, 1)}
	err := w.st.Update(t.Context(), func(tx store.Tx) error {
		at = clock
		for i := range n {
			e := api.AuditEntry{Kind: api.AuditRelease, Decision: "allow", Subject: fmt.Sprintf("snp/%d", i%7), Object: fmt.Sprintf("resource/a/b/%d", i%5)}
			if i%10 == 3 {
				e.Kind, e.Decision, e.Subject, e.Tenant = api.AuditPolicyPut, "change", "admin:eve", "red"
			}
			if i%10 == 7 {
				e.Decision, e.Code = "deny", "policy_denied"
			}
			if _, err := log.AppendTx(tx, e); err != nil {
				return err
			}
			at = at.Add(time.Minute)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ask follows a query page by page.
func (w *world) ask(t *testing.T, f Filter, limit int) (found []int64, pages int) {
	t.Helper()
	for from := int64(0); ; pages++ {
		p, err := w.log.Query(t.Context(), f, from, limit)
		if err != nil || len(p.Entries) > limit {
			t.Fatalf("%d entries, %v", len(p.Entries), err)
		}
		for _, raw := range p.Entries {
			var e api.AuditEntry
			if err := json.Unmarshal(raw, &e); err != nil || !f.Match(e) {
				t.Fatalf("%s: %v", raw, err)
			}
			found = append(found, e.Index)
		}
		if p.Next >= p.Size {
			return found, pages + 1
		}
		if p.Next <= from {
			t.Fatalf("page after %d goes on at %d", from, p.Next)
		}
		from = p.Next
	}
}

func TestQuery(t *testing.T) {
	w := newWorld(t)
	const n = 1234
	w.varied(t, n)
	tests := []struct {
		name string
		f    Filter
		want func(i int64) bool
	}{
		{"all", Filter{}, func(int64) bool { return true }},
		{"kind", Filter{Kind: "policy.put"}, func(i int64) bool { return i%10 == 3 }},
		{"kinds", Filter{Kind: "policy.*"}, func(i int64) bool { return i%10 == 3 }},
		{"decision", Filter{Decision: "deny"}, func(i int64) bool { return i%10 == 7 }},
		{"tenant", Filter{Tenant: "red"}, func(i int64) bool { return i%10 == 3 }},
		{"the default tenant", Filter{Tenant: DefaultTenant}, func(i int64) bool { return i%10 != 3 }},
		{"subject", Filter{Subject: "snp/2"}, func(i int64) bool { return i%7 == 2 && i%10 != 3 }},
		{"subjects", Filter{Subject: "admin:*"}, func(i int64) bool { return i%10 == 3 }},
		{"object and code", Filter{Object: "resource/a/b/2", Code: "policy_denied"}, func(i int64) bool { return i%10 == 7 }},
		{"since", Filter{Since: clock.Add(700 * time.Minute)}, func(i int64) bool { return i >= 700 }},
		{"until", Filter{Until: clock.Add(30 * time.Minute)}, func(i int64) bool { return i < 30 }},
		{"a span", Filter{Kind: "release", Since: clock.Add(100 * time.Minute), Until: clock.Add(110 * time.Minute)}, func(i int64) bool { return i >= 100 && i < 110 && i%10 != 3 }},
		{"nothing", Filter{Kind: "attest"}, func(int64) bool { return false }},
		{"the future", Filter{Since: clock.Add(1e6 * time.Minute)}, func(int64) bool { return false }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []int64
			for i := range int64(n) {
				if tt.want(i) {
					want = append(want, i)
				}
			}
			// The log keeps microseconds, and the clock has more digits.
			if !tt.f.Since.IsZero() {
				tt.f.Since = tt.f.Since.Truncate(time.Microsecond)
			}
			if !tt.f.Until.IsZero() {
				tt.f.Until = tt.f.Until.Truncate(time.Microsecond)
			}
			for _, limit := range []int{1000, 7} {
				if got, _ := w.ask(t, tt.f, limit); !slices.Equal(got, want) {
					t.Fatalf("limit %d: %d entries %v..., want %d", limit, len(got), got[:min(5, len(got))], len(want))
				}
			}
		})
	}
	if _, err := w.log.Query(t.Context(), Filter{}, -1, 1); !errors.Is(err, ErrRange) {
		t.Errorf("from -1: %v", err)
	}
}

// One query reads a bounded part of the log, wherever what it looks for is,
// and does not read what is older than it asks for.
func TestQueryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.varied(t, 2*maxScan+100)
	if _, pages := w.ask(t, Filter{Kind: "attest"}, 10); pages != 3 {
		t.Errorf("%d pages for nothing", pages)
	}
	p, err := w.log.Query(t.Context(), Filter{Since: clock.Add(2 * maxScan * time.Minute)}, 0, 1000)
	if err != nil || len(p.Entries) < 99 || p.Next != p.Size {
		t.Errorf("%d entries, next %d of %d: %v", len(p.Entries), p.Next, p.Size, err)
	}
}
