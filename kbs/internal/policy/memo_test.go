package policy

import (
	"encoding/json"
	"testing"
)

func ask(t *testing.T, b *bench, in Input, path ...string) bool {
	t.Helper()
	d, err := b.engine.Authorize(t.Context(), Release{Plugin: "resource", Path: path, Input: in})
	if err != nil {
		t.Fatal(err)
	}
	return d.Allow
}

func parsed(t *testing.T, claims string) Input {
	t.Helper()
	in, err := ParseInput(json.RawMessage(claims))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

const allowA = `package policy

default allow := false

allow if data["resource-path"][0] == "a"
`

// A decision that is remembered ends with the policy that made it.
func TestRememberedDecisionsFollowThePolicy(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, "resource-policy", allowA)
	in := parsed(t, `{"tee":"snp"}`)
	for range 2 {
		if !ask(t, b, in, "a", "x") || ask(t, b, in, "b", "x") {
			t.Fatal("the policy allows a alone")
		}
	}
	if n := len(in.memo.allowed); n != 2 {
		t.Fatalf("%d decisions are remembered, want 2", n)
	}
	if ask(t, b, in, "a\x00x") || ask(t, b, in, "ab") {
		t.Fatal("two paths are taken for one")
	}
	b.put(t, Resource, "resource-policy", `package policy

default allow := false
`)
	if ask(t, b, in, "a", "x") {
		t.Fatal("the decision outlived its policy")
	}
	b.put(t, Resource, "resource/a", allowA)
	if !ask(t, b, in, "a", "x") {
		t.Fatal("a policy for the prefix is not asked")
	}
}

func TestRememberedDecisionsAreBounded(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, "resource-policy", allowA)
	in := parsed(t, `{}`)
	for i := range 3 * maxRemembered {
		if ask(t, b, in, string(rune('b'+i))) {
			t.Fatal("not a")
		}
	}
	if n := len(in.memo.allowed); n == 0 || n > maxRemembered {
		t.Fatalf("%d decisions are remembered", n)
	}
}

// What looks at the clock or at values that expire is asked each time.
func TestPure(t *testing.T) {
	tests := []struct {
		name, body string
		want       bool
	}{
		{"claims and path", `allow if input.tee == data.plugin`, true},
		{"sprintf", `allow if sprintf("%s", [input.tee]) == "snp"`, true},
		{"clock", `allow if time.now_ns() > 0`, false},
		{"clock in a term", `allow if input.n in [1, time.now_ns()]`, false},
		{"clock in a function", "late(x) if x < time.now_ns()\n\nallow if late(input.n)", false},
		{"clock in a comprehension", `allow if count([x | some x in input.l; x > time.now_ns()]) == 0`, false},
		{"clock in a head", "when := time.now_ns()\n\nallow if when > 1", false},
		{"reference value", `allow if input.m in query_reference_value("m")`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := compile(t.Context(), Resource, "package policy\n\ndefault allow := false\n\n"+tt.body+"\n")
			if err != nil {
				t.Fatal(err)
			}
			if p.pure != tt.want {
				t.Errorf("pure is %v", p.pure)
			}
		})
	}
}

// A decision that hangs on the clock by way of a certificate is made each time.
func TestCertificatesAreNotRemembered(t *testing.T) {
	p, err := compile(t.Context(), Resource, "package policy\n\nallow if crypto.x509.parse_and_verify_certificates(input.chain)[0]\n")
	if err != nil {
		t.Fatal(err)
	}
	if p.pure {
		t.Error("what a certificate is worth is taken to stay the same")
	}
}
