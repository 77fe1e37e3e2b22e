package policy

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
)

// Values are kept between evaluations, and are never older than the last
// change or their expiry.
func TestReferenceValuesAreNeverStale(t *testing.T) {
	b := newBench(t)
	clock := time.Now()
	now := func() time.Time { return clock }
	b.docs.now, b.refs = now, refvalue.Open(b.st, now)
	b.engine = newHost(t).Engine(b.docs, b.refs)
	b.put(t, Resource, ResourcePolicy, "package policy\n\ndefault allow := false\n\nallow if input.m in query_reference_value(\"m\")\n")
	r := Release{Claims: json.RawMessage(`{"m":"a"}`)}
	expect := func(what string, want bool) {
		t.Helper()
		for range 2 {
			if got := b.allows(t, r); got != want {
				t.Fatalf("%s: %v", what, got)
			}
		}
	}
	expect("absent", false)
	b.value(t, "m", `["a"]`)
	expect("registered", true)
	b.value(t, "m", `["b"]`)
	expect("changed", false)
	if _, err := b.refs.Put(t.Context(), api.RefValue{Name: "m", Version: -1, Value: json.RawMessage(`["a"]`), Expires: clock.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	expect("with an expiry", true)
	clock = clock.Add(time.Minute)
	expect("expired", false)
	later := api.RefValue{Name: "m", Version: -1, Value: json.RawMessage(`["a"]`), NotBefore: clock.Add(time.Minute)}
	if _, err := b.refs.Put(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	expect("not yet in force", false)
	clock = clock.Add(time.Minute)
	expect("in force", true)
	if err := b.refs.Delete(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	expect("deleted", false)
}

// What a policy asks for is bounded, and beyond the bound still right.
func TestKeptValuesAreBounded(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, fmt.Sprintf(`package policy

allow if {
	every i in numbers.range(1, %d) {
		query_reference_value(sprintf("v%%d", [i])) == null
	}
	query_reference_value("last") == "x"
}
`, maxValues+10))
	b.value(t, "last", `"x"`)
	if !b.allows(t, Release{}) {
		t.Fatal("not allowed")
	}
	if n := len(b.engine.index.Load().values.byName); n != maxValues {
		t.Fatalf("%d values are kept", n)
	}
}
