package ticket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var clock = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

func open(t testing.TB) (*book, *audit.Log) {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	by, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return clock }
	log, err := audit.Open(context.Background(), st, keyring.Open(st, by), now)
	if err != nil {
		t.Fatal(err)
	}
	return Open(st, log, time.Hour, now).(*book), log
}

func TestRecordAndExplain(t *testing.T) {
	b, log := open(t)
	ctx := context.Background()
	if _, err := log.Append(ctx, api.AuditEntry{Kind: "attest"}); err != nil {
		t.Fatal(err)
	}
	want := api.Explanation{
		Code: "policy_denied", Stage: "release", Platform: "snp", Subject: "guest-1", Object: "a/b/c", Cause: "measurement <unknown>",
		Findings: []api.Finding{{Claim: "measurement", Seen: "2f19", Wanted: []string{"2f18"}, Nearest: "guest-1.4"}},
		Policy:   "resource/default@3", Rule: "allow", Line: 12,
	}
	ticket, err := b.Record(ctx, want, api.AuditEntry{
		Kind: "release", Decision: "deny", Code: "x", Ticket: "x", Subject: "x", Object: "x", Details: map[string]string{"k": "v"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want.Ticket, want.Time, want.Audit, want.Group = string(ticket), clock, 1, GroupOf(want)
	got, err := b.Explain(ctx, ticket)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("explain:\n got %+v, %v\nwant %+v", got, err, want)
	}
	entries, err := log.Entries(ctx, 1, 5)
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries: %q, %v", entries, err)
	}
	var entry api.AuditEntry
	if err := json.Unmarshal(entries[0], &entry); err != nil {
		t.Fatal(err)
	}
	wantEntry := api.AuditEntry{
		Index: 1, Time: clock, Kind: "release", Decision: "deny", Code: "policy_denied", Ticket: string(ticket),
		Subject: "guest-1", Object: "a/b/c", Details: map[string]string{"k": "v"},
	}
	if !reflect.DeepEqual(entry, wantEntry) {
		t.Fatalf("entry:\n got %+v\nwant %+v", entry, wantEntry)
	}
}

func TestExplainUnknown(t *testing.T) {
	b, _ := open(t)
	for _, unknown := range []fault.Ticket{"AAAA-BBBB", "", "../x", "aaaa-bbbb", "AAAA-BBBB\x00"} {
		if e, err := b.Explain(context.Background(), unknown); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("explain(%q): %+v, %v", unknown, e, err)
		}
	}
}

func TestListNewestFirst(t *testing.T) {
	b, log := open(t)
	ctx := context.Background()
	var want []string
	for i := range 12 {
		if _, err := log.Append(ctx, api.AuditEntry{Kind: "attest"}); err != nil {
			t.Fatal(err)
		}
		cause := fmt.Sprint(i)
		if _, err := b.Record(ctx, api.Explanation{Cause: cause}, api.AuditEntry{}); err != nil {
			t.Fatal(err)
		}
		want = append([]string{cause}, want...)
	}
	for _, limit := range []int{1, 5, 12, 100} {
		got, err := b.List(ctx, limit)
		if err != nil || len(got) != min(limit, 12) {
			t.Fatalf("list(%d): %d of them, %v", limit, len(got), err)
		}
		for i, e := range got {
			if e.Cause != want[i] {
				t.Fatalf("list(%d)[%d] is %q, want %q", limit, i, e.Cause, want[i])
			}
		}
	}
}

func TestTakenTicketsAreDrawnAgain(t *testing.T) {
	b, log := open(t)
	ctx := context.Background()
	draws := []fault.Ticket{"AAAA-AAAA", "AAAA-AAAA", "AAAA-AAAA", "BBBB-BBBB"}
	b.draw = func() fault.Ticket { d := draws[0]; draws = draws[1:]; return d }
	for i, want := range []fault.Ticket{"AAAA-AAAA", "BBBB-BBBB"} {
		got, err := b.Record(ctx, api.Explanation{Cause: fmt.Sprint(i)}, api.AuditEntry{})
		if err != nil || got != want {
			t.Fatalf("record %d: %s, %v; want %s", i, got, err, want)
		}
	}
	b.draw = func() fault.Ticket { return "AAAA-AAAA" }
	if _, err := b.Record(ctx, api.Explanation{}, api.AuditEntry{}); !errors.Is(err, ErrExhausted) {
		t.Fatalf("record: %v", err)
	}
	if e, err := b.Explain(ctx, "AAAA-AAAA"); err != nil || e.Cause != "0" {
		t.Fatalf("the first explanation was replaced: %+v, %v", e, err)
	}
	if n, err := log.Size(ctx); n != 2 || err != nil {
		t.Fatalf("the log has %d entries, %v", n, err)
	}
}

// failing appends, and then fails.
type failing struct{ audit.Recorder }

func (f failing) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	_, err := f.Recorder.AppendTx(tx, e)
	return api.AuditEntry{}, errors.Join(err, errors.New("disk is full"))
}

// No explanation without its entry, and no entry without its explanation.
func TestBothOrNeither(t *testing.T) {
	b, log := open(t)
	ctx := context.Background()
	check := func(name string) {
		t.Helper()
		if n, err := log.Size(ctx); n != 0 || err != nil {
			t.Errorf("%s: the log has %d entries, %v", name, n, err)
		}
		if es, err := b.List(ctx, 10); len(es) != 0 || err != nil {
			t.Errorf("%s: the book lists %v, %v", name, es, err)
		}
	}
	if _, err := b.Record(ctx, api.Explanation{Cause: strings.Repeat("x", MaxExplanation)}, api.AuditEntry{}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("record: %v", err)
	}
	check("an explanation that is too large")
	b.rec = failing{log}
	if ticket, err := b.Record(ctx, api.Explanation{}, api.AuditEntry{}); err == nil || ticket != "" {
		t.Fatalf("record: %q, %v", ticket, err)
	}
	check("a log that fails")
}

func BenchmarkRecord(b *testing.B) {
	book, _ := open(b)
	for b.Loop() {
		if _, err := book.Record(b.Context(), api.Explanation{Code: "policy_denied", Cause: "why"}, api.AuditEntry{Kind: "release"}); err != nil {
			b.Fatal(err)
		}
	}
}
