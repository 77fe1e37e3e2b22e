package revocation_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/revocation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/snapshot"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

func open(t *testing.T) (store.Store, *time.Time, func() time.Time) {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	clock := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	return st, &clock, func() time.Time { return clock }
}

func nothing(store.Tx, api.GuestRevocation) error { return nil }

func TestEvidence(t *testing.T) {
	st, _, now := open(t)
	l := revocation.Open(st, 5*time.Minute, now)
	evidence := json.RawMessage(`{"snp":{"chip_id":"8fab","vmpl":1,"debug":false,"svn":18446744073709551615},"tdx":{"quote":{"body":{"mr_td":"00ff"}}},` +
		`"devices":[{"hwid":"a"},{"hwid":"b"}],"init_data":"77","none":null}`)
	for name, c := range map[string]struct {
		claim, value string
		refused      bool
	}{
		"a chip":             {"snp.chip_id", "8fab", true},
		"in capitals":        {"snp.chip_id", "8FAB", true},
		"another chip":       {"snp.chip_id", "8fac", false},
		"part of it":         {"snp.chip_id", "8fa", false},
		"deep":               {"tdx.quote.body.mr_td", "00ff", true},
		"not so deep":        {"tdx.quote.body", "00ff", false},
		"too deep":           {"snp.chip_id.x", "8fab", false},
		"a number":           {"snp.vmpl", "1", true},
		"a large number":     {"snp.svn", "18446744073709551615", true},
		"a truth":            {"snp.debug", "false", true},
		"one of a list":      {"devices.hwid", "b", true},
		"none of a list":     {"devices.hwid", "c", false},
		"at the top":         {"init_data", "77", true},
		"of another":         {"tdx.chip_id", "8fab", false},
		"nothing is nothing": {"none", "<nil>", false},
	} {
		r, err := l.Add(t.Context(), api.GuestRevocation{Claim: c.claim, Value: c.value, Reason: "test"}, false, nothing)
		if err != nil {
			t.Fatal(err)
		}
		err = l.Evidence(t.Context(), evidence)
		if c.refused != (fault.CodeOf(err) == fault.GuestRevoked) || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := l.Remove(t.Context(), r.ID, nothing); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Evidence(t.Context(), evidence); err != nil {
		t.Errorf("nothing is revoked any more: %v", err)
	}
}

// A token's revocation ends with the token, any other when it says so.
func TestRevocationsEnd(t *testing.T) {
	st, clock, now := open(t)
	l := revocation.Open(st, 5*time.Minute, now)
	other := revocation.Open(st, 5*time.Minute, now) // of another replica
	if err := other.Token(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	add := func(r api.GuestRevocation, foreign bool) api.GuestRevocation {
		t.Helper()
		r.Reason = "test"
		r, err := l.Add(t.Context(), r, foreign, nothing)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	own := add(api.GuestRevocation{TokenID: "a"}, false)
	add(api.GuestRevocation{TokenID: "foreign-1"}, true)
	add(api.GuestRevocation{Claim: "snp.chip_id", Value: "8f", Until: clock.Add(time.Minute)}, false)
	if err := l.Token(t.Context(), "a"); fault.CodeOf(err) != fault.TokenInvalid {
		t.Errorf("at once, here: %v", err)
	}
	*clock = clock.Add(snapshot.Fresh)
	if err := other.Token(t.Context(), "a"); fault.CodeOf(err) != fault.TokenInvalid {
		t.Errorf("a second later, there: %v", err)
	}
	*clock = clock.Add(time.Minute)
	if err := l.Evidence(t.Context(), json.RawMessage(`{"snp":{"chip_id":"8f"}}`)); err != nil {
		t.Errorf("the end has come: %v", err)
	}
	*clock = own.Until
	if err := l.Token(t.Context(), "a"); err != nil {
		t.Errorf("the token has ended: %v", err)
	}
	if all, err := l.All(t.Context()); err != nil || len(all) != 1 || all[0].TokenID != "foreign-1" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestRevocationsThatNameNothing(t *testing.T) {
	st, clock, now := open(t)
	l := revocation.Open(st, 5*time.Minute, now)
	for name, r := range map[string]api.GuestRevocation{
		"nothing":      {Reason: "x"},
		"no value":     {Claim: "snp.chip_id", Reason: "x"},
		"no claim":     {Value: "8f", Reason: "x"},
		"both":         {TokenID: "a", Claim: "snp.chip_id", Value: "8f", Reason: "x"},
		"half of both": {TokenID: "a", Value: "8f", Reason: "x"},
		"no reason":    {TokenID: "a"},
		"over already": {TokenID: "a", Reason: "x", Until: *clock},
		"too long":     {TokenID: strings.Repeat("a", 1025), Reason: "x"},
		"too deep":     {Claim: strings.Repeat("a.", 17), Value: "x", Reason: "x"},
	} {
		if _, err := l.Add(t.Context(), r, false, nothing); !errors.Is(err, revocation.ErrRevocation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []string{"", "x", "\x00"} {
		if err := l.Remove(t.Context(), id, nothing); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// A full list takes nothing more, but what is on it can still be said otherwise,
// and what has ended makes room.
func TestFullList(t *testing.T) {
	st, clock, now := open(t)
	l := revocation.Open(st, 5*time.Minute, now)
	add := func(id string, until time.Time) error {
		_, err := l.Add(t.Context(), api.GuestRevocation{TokenID: id, Reason: "test", Until: until}, true, nothing)
		return err
	}
	soon := clock.Add(time.Minute)
	for n := range 1000 {
		until := time.Time{}
		if n < 2 {
			until = soon
		}
		if err := add(strconv.Itoa(n), until); err != nil {
			t.Fatal(err)
		}
	}
	if err := add("one more", time.Time{}); !errors.Is(err, revocation.ErrRevocation) {
		t.Errorf("beyond the end: %v", err)
	}
	if err := add("7", clock.Add(time.Hour)); err != nil {
		t.Errorf("one that is there, until later: %v", err)
	}
	*clock = soon.Add(time.Second)
	for _, id := range []string{"one more", "and another"} {
		if err := add(id, time.Time{}); err != nil {
			t.Errorf("%s, after two have ended: %v", id, err)
		}
	}
	if err := add("too many", time.Time{}); !errors.Is(err, revocation.ErrRevocation) {
		t.Errorf("full again: %v", err)
	}
	if err := l.Token(t.Context(), "and another"); fault.CodeOf(err) != fault.TokenInvalid {
		t.Errorf("%v", err)
	}
}
