package limit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
)

// paper is a book that counts.
type paper struct {
	ticket.Book
	n int
}

func (p *paper) Record(context.Context, api.Explanation, api.AuditEntry) (fault.Ticket, error) {
	p.n++
	return fault.Ticket(fmt.Sprintf("AAAA-%04d", p.n)), nil
}

// log is an audit log that remembers.
type log struct {
	entries []api.AuditEntry
	err     error
}

func (l *log) Append(_ context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	l.entries = append(l.entries, e)
	return e, l.err
}

func (l *log) AppendTx(store.Tx, api.AuditEntry) (api.AuditEntry, error) { panic("not used") }

func TestBook(t *testing.T) {
	var p paper
	var l log
	b := NewBook(&p, &l)
	r := Rates{Burst: 3 * time.Second, Addresses: 10}
	r.PerSecond[Failures] = 1
	now := time.Now()
	g := NewGuard(r, func() time.Time { return now }, func(string) {})
	one, two := g.With(t.Context(), netip.MustParseAddr("192.0.2.1")), g.With(t.Context(), netip.MustParseAddr("192.0.2.2"))
	record := func(ctx context.Context, code, subject string) fault.Ticket {
		t.Helper()
		got, err := b.Record(ctx, api.Explanation{Code: code, Stage: "attest", Subject: subject, Object: "o"}, api.AuditEntry{Kind: api.AuditAttest, Decision: "deny"})
		if err != nil && fault.CodeOf(err) != fault.TooMany {
			t.Fatal(err)
		}
		return got
	}
	first := record(one, "session_invalid", "")
	for range 9 {
		if got := record(one, "session_invalid", ""); got != first {
			t.Errorf("the same refusal has tickets %s and %s", first, got)
		}
	}
	if record(two, "session_invalid", "") == first || record(one, "token_invalid", "") == first {
		t.Error("another address, or another reason, has the same ticket")
	}
	record(one, "a", "")
	if got := record(one, "b", ""); got != "" || p.n != 4 {
		t.Errorf("the fourth reason of an address has ticket %q, %d were recorded", got, p.n)
	}
	for range 5 {
		record(t.Context(), "internal", "")
	}
	if p.n != 9 {
		t.Errorf("%d were recorded: work of our own must be each time", p.n)
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.entries) != 1 || l.entries[0].Ticket != string(first) || l.entries[0].Details["repeated"] != "9" || l.entries[0].Code != "session_invalid" || l.entries[0].Object != "o" {
		t.Errorf("%+v", l.entries)
	}
	now = now.Add(time.Minute)
	if record(one, "session_invalid", "") == first {
		t.Error("a ticket lives longer than its window")
	}
	record(one, "session_invalid", "")
	l.err = errors.New("disk full")
	if err := b.Flush(t.Context()); err == nil {
		t.Error("a count was lost in silence")
	}
}

// What a guest with a token is refused again and again is one ticket, from
// wherever it asks, and an entry that counts.
func TestBookOfKnownCallers(t *testing.T) {
	var p paper
	var l log
	b := NewBook(&p, &l)
	g := NewGuard(Rates{}, time.Now, func(string) {})
	record := func(ctx context.Context, subject, object string) (fault.Ticket, error) {
		return b.Record(ctx, api.Explanation{Code: "policy_denied", Subject: subject, Object: object}, api.AuditEntry{Kind: api.AuditRelease, Decision: "deny"})
	}
	first, err := record(t.Context(), "guest-1", "a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if again, err := record(g.With(t.Context(), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})), "guest-1", "a/b/c"); again != first || err != nil {
			t.Errorf("the same refusal: %s, %v", again, err)
		}
	}
	for _, c := range [][2]string{{"guest-2", "a/b/c"}, {"guest-1", "a/b/d"}} {
		if other, err := record(t.Context(), c[0], c[1]); other == first || err != nil {
			t.Errorf("%v: %s, %v", c, other, err)
		}
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.entries) != 1 || l.entries[0].Ticket != string(first) || l.entries[0].Details["repeated"] != "4" || l.entries[0].Subject != "guest-1" {
		t.Errorf("%+v", l.entries)
	}
	if again, err := record(t.Context(), "guest-1", "a/b/c"); again == first || err != nil {
		t.Errorf("after a flush: %s, %v", again, err)
	}
}

// No guest writes more than its share, and all together leave each other one
// its first refusal.
func TestBookShares(t *testing.T) {
	var p paper
	b := NewBook(&p, &log{})
	record := func(guest, object int) bool {
		t.Helper()
		_, err := b.Record(t.Context(), api.Explanation{Code: "policy_denied", Subject: fmt.Sprint(guest), Object: fmt.Sprint(object)}, api.AuditEntry{})
		if err != nil && fault.CodeOf(err) != fault.TooMany {
			t.Fatal(err)
		}
		return err == nil
	}
	const guests = mostKnown/(mostOfOne-1) + 1
	for guest := range guests {
		for object := range mostOfOne + 3 {
			record(guest, object)
		}
	}
	if want := mostKnown + guests; p.n != want {
		t.Errorf("%d were recorded, want %d", p.n, want)
	}
	if !record(guests, 0) || record(guests, 1) || record(0, mostOfOne) || !record(0, 0) {
		t.Error("a first refusal has no room, or a second, or a repeated one has none")
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for object := range 2 * mostOfOne {
		if record(0, object) {
			n++
		}
	}
	if n != mostOfOne {
		t.Errorf("%d refusals of one guest after the flush", n)
	}
}

// However many addresses refuse however many things, a window has an end.
func TestBookIsBounded(t *testing.T) {
	var p paper
	b := NewBook(&p, &log{})
	g := NewGuard(Rates{}, time.Now, func(string) {})
	for i := range 3 * mostOpen {
		ctx := g.With(t.Context(), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		_, err := b.Record(ctx, api.Explanation{Code: "x"}, api.AuditEntry{})
		if (err == nil) != (i < mostOpen) {
			t.Fatalf("refusal %d: %v", i, err)
		}
	}
	if p.n != mostOpen {
		t.Errorf("%d were recorded", p.n)
	}
}
