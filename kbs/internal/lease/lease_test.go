package lease

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

type world struct {
	t     *testing.T
	st    store.Store
	clock time.Time
	book  *Book
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w := &world{t: t, st: store.Scope(st, "t/x/"), clock: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)}
	w.book = w.open()
	return w
}

func (w *world) open() *Book { return Open(w.st, func() time.Time { return w.clock }) }

// give records a release and returns whether it wrote.
func (w *world) give(b *Book, g Grant) bool {
	w.t.Helper()
	also := 0
	done, full, err := b.Record(w.t.Context(), g, func(store.Tx) error { also++; return nil })
	if err != nil || full || done != (also > 0) {
		w.t.Fatalf("done %t with %d entries, full %t, %v", done, also, full, err)
	}
	return done
}

func (w *world) grant(chip, tok, object string, version int64) Grant {
	g := GuestOf(claims(tok, fmt.Sprintf(`{"snp":{"chip_id":%q,"report_data":%q}}`, chip, tok)))
	return Grant{Guest: g, Platform: "snp", TokenID: tok, Object: object, Version: version, Until: w.clock.Add(5 * time.Minute)}
}

func claims(id, evidence string) token.Claims {
	return token.Claims{ID: id, Submods: map[string]token.AppraisalClaims{"cpu0": {Evidence: json.RawMessage(evidence)}}}
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	first := w.grant("8f", "tok-1", "resource/a/b/c", 1)
	if !w.give(w.book, first) || w.give(w.book, first) {
		t.Error("the first release writes, the second does not")
	}
	begun := w.clock
	w.clock = w.clock.Add(4 * time.Minute)
	if !w.give(w.book, w.grant("8f", "tok-2", "resource/a/b/c", 2)) {
		t.Error("another token renews")
	}
	l, err := w.book.Get(t.Context(), ID(first.Guest, first.Object))
	if err != nil || !l.Since.Equal(begun) || !l.Renewed.Equal(w.clock) || !l.Until.Equal(w.clock.Add(5*time.Minute)) || l.TokenID != "tok-2" || l.Version != 2 {
		t.Errorf("%+v, %v", l, err)
	}
	// Another replica knows the lease, and the old token does not shorten it.
	if !w.give(w.open(), first) {
		t.Error("another replica cannot know")
	}
	if l, err := w.book.Get(t.Context(), l.ID); err != nil || !l.Until.Equal(w.clock.Add(5*time.Minute)) {
		t.Errorf("%+v, %v", l, err)
	}
	w.clock = l.Until.Add(Kept - time.Second)
	if _, err := w.book.Get(t.Context(), l.ID); err != nil {
		t.Errorf("ended, and kept: %v", err)
	}
	w.clock = w.clock.Add(time.Second)
	for _, id := range []string{l.ID, "none", "\x00"} {
		if _, err := w.book.Get(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if n, err := store.Sweep(t.Context(), w.st, w.clock.Add(time.Second)); err != nil || n != 1 {
		t.Errorf("swept %d, %v", n, err)
	}
}

// A lease and what belongs to it are written together or not at all.
func TestWithItsEntry(t *testing.T) {
	w := newWorld(t)
	g := w.grant("8f", "tok-1", "resource/a/b/c", 1)
	broken := errors.New("the log is full")
	if done, _, err := w.book.Record(t.Context(), g, func(store.Tx) error { return broken }); done || !errors.Is(err, broken) {
		t.Fatalf("%t, %v", done, err)
	}
	if _, err := w.book.Get(t.Context(), ID(g.Guest, g.Object)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a lease without its entry: %v", err)
	}
	if !w.give(w.book, g) {
		t.Error("it was taken for written")
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t)
	for _, chip := range []string{"8f", "8e"} {
		for _, object := range []string{"resource/a/b/c", "resource/a/b/d", "pkcs11/wrap-key"} {
			w.give(w.book, w.grant(chip, "tok-"+chip, object, 0))
		}
	}
	eight := w.grant("8f", "x", "", 0).Guest.ID
	for name, c := range map[string]struct {
		q    Query
		want int
	}{
		"all":            {Query{}, 6},
		"one object":     {Query{Object: "resource/a/b/c"}, 2},
		"a guest":        {Query{Guest: eight}, 3},
		"a token":        {Query{Guest: "tok-8e"}, 3},
		"both":           {Query{Guest: eight, Object: "resource/a/b/d"}, 1},
		"a chip":         {Query{Claim: "snp.chip_id=8F"}, 3},
		"another claim":  {Query{Claim: "snp.chip=8F"}, 0},
		"what is hidden": {Query{Claim: "snp.report_data=tok-8f"}, 0},
	} {
		page, next, err := w.book.Page(t.Context(), c.q)
		if err != nil || next != "" || len(page) != c.want {
			t.Errorf("%s: %d, %q, %v", name, len(page), next, err)
		}
	}
	all, _, err := w.book.Page(t.Context(), Query{})
	if err != nil || !slices.IsSortedFunc(all, func(a, b api.Lease) int { return cmp.Compare(a.ID, b.ID) }) {
		t.Fatal(err)
	}
	rest, _, err := w.book.Page(t.Context(), Query{After: all[3].ID})
	if err != nil || len(rest) != 2 || rest[0].ID != all[4].ID {
		t.Errorf("%+v, %v", rest, err)
	}
}

// Beyond the bound nothing is written, and what is there is still renewed or
// listed; room that time made is found at the next count.
func TestBound(t *testing.T) {
	w := newWorld(t)
	w.book.most = 3
	for i := range 3 {
		w.give(w.book, w.grant(fmt.Sprint(i), "t", fmt.Sprintf("o/%d", i), 0))
	}
	over := w.grant("9", "t", "o/9", 0)
	record := func(b *Book) (bool, bool) {
		done, full, err := b.Record(context.WithoutCancel(t.Context()), over, func(store.Tx) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return done, full
	}
	if done, full := record(w.book); done || !full {
		t.Errorf("done %t, full %t", done, full)
	}
	other := w.open()
	other.most = 3
	if done, full := record(other); done || !full {
		t.Errorf("another replica: done %t, full %t", done, full)
	}
	w.clock = w.clock.Add(Kept + time.Hour)
	if _, err := store.Sweep(t.Context(), w.st, w.clock); err != nil {
		t.Fatal(err)
	}
	if done, full := record(w.book); !done || full {
		t.Errorf("after a day: done %t, full %t", done, full)
	}
}

func TestGuestOf(t *testing.T) {
	id := func(evidence string) string { return GuestOf(claims("tok", evidence)).ID }
	same := id(`{"snp":{"chip_id":"8f","measurement":"00","vmpl":1,"report_data":"aa"},"init_data":"77"}`)
	for name, c := range map[string]struct {
		evidence string
		same     bool
	}{
		"another nonce":       {`{"init_data":"77","snp":{"report_data":"bb","vmpl":1,"measurement":"00","chip_id":"8f"}}`, true},
		"with a log":          {`{"snp":{"chip_id":"8f","measurement":"00","vmpl":1,"log":[{"a":1}]},"init_data":"77"}`, true},
		"a later quote":       {`{"tpm":{"tpm_clock":7,"pcr10":"aa","ima":{"entries":3}},"snp":{"chip_id":"8f","measurement":"00","vmpl":1},"init_data":"77"}`, true},
		"another chip":        {`{"snp":{"chip_id":"8e","measurement":"00","vmpl":1},"init_data":"77"}`, false},
		"another measurement": {`{"snp":{"chip_id":"8f","measurement":"01","vmpl":1},"init_data":"77"}`, false},
		"other start data":    {`{"snp":{"chip_id":"8f","measurement":"00","vmpl":1},"init_data":"78"}`, false},
		"nothing":             {``, false},
	} {
		if got := id(c.evidence); (got == same) != c.same {
			t.Errorf("%s: the same is %t", name, got == same)
		}
	}
	if GuestOf(claims("a", "")).ID == GuestOf(claims("b", "")).ID {
		t.Error("two tokens without evidence are one guest")
	}
	large := map[string]any{}
	for i := range 1000 {
		large[fmt.Sprintf("claim %d", i)] = i
	}
	raw, err := json.Marshal(large)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(GuestOf(claims("t", string(raw))).Claims); n != maxClaims {
		t.Errorf("%d claims are kept", n)
	}
}

func FuzzGuestOf(f *testing.F) {
	f.Add([]byte(`{"snp":{"chip_id":"8f","x":[1,{"y":null}],"deep":{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		g := GuestOf(claims("t", string(raw)))
		if g.ID == "" || len(g.Claims) > maxClaims || g.ID != GuestOf(claims("t", string(raw))).ID {
			t.Fatalf("%+v", g)
		}
	})
}

// What the hardware says is remembered however much init-data comes along.
func TestInitDataCrowdsOutNothing(t *testing.T) {
	var entries []string
	for n := range 2 * maxClaims {
		entries = append(entries, fmt.Sprintf("%q:%q", fmt.Sprintf("a%d", n), "x"))
	}
	of := func(chip string) Guest {
		return GuestOf(claims("t", fmt.Sprintf(`{"snp":{"chip_id":%q,"tcb":{"svn":7}},"init_data":"77","init_data_claims":{%s}}`, chip, strings.Join(entries, ","))))
	}
	g := of("8f")
	if g.Claims["snp.chip_id"] != "8f" || g.Claims["snp.tcb.svn"] != "7" || len(g.Claims) != maxClaims {
		t.Errorf("%d claims: %v", len(g.Claims), g.Claims)
	}
	if g.ID == of("90").ID {
		t.Error("two chips are one guest")
	}
}
