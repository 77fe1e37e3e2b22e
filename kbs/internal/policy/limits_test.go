package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// calls writes a call within a call: what doublings does, out of sight of the
// compiler.
func calls(f string, n int) string {
	return strings.Repeat(f+"(", n) + "[input]" + strings.Repeat(")", n)
}

const twice = "package policy\n\nf(x) := [x, x]\n\ng(x) := array.concat(x, x)\n\nh(x) := sprintf(\"%v,%v\", [x, x])\n\n"

// doublings writes rules each of which holds the one before twice: a small
// thing that is huge for whoever walks it.
func doublings(n int, how string) string {
	var b strings.Builder
	b.WriteString("package policy\n\nx0 := [input]\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "\nx%d := "+how+"\n", i, i-1, i-1)
	}
	return b.String()
}

// A text that would keep the compiler busy for minutes is refused, or is none
// that does.
func TestTextsThatTireTheCompiler(t *testing.T) {
	many := strings.Repeat
	for name, c := range map[string]struct {
		text    string
		refused string // "": it compiles
	}{
		"brackets":     {"x := " + many("[", 60000) + many("]", 60000), "recursion depth"},
		"open":         {"x := " + many("[", 200000), "recursion depth"},
		"nested":       {"x := " + many("[", 250) + many("]", 250), "nested too deeply"},
		"sum":          {"x := 1" + many("+1", 60000), "nested too deeply"},
		"union":        {"x := {1}" + many("|{1}", 15000), "nested too deeply"},
		"every":        {"x if {" + many("every y in input {", 6000) + "1" + many("}", 6000) + "}", "nested too deeply"},
		"else":         {"x := 1 if input.a" + many(" else := 1 if input.a", 7500), "too many else"},
		"comprehended": {"x := " + many("[1|y:=", 500) + "1" + many("]", 500), "nested too deeply"},
		"interpolated": {"x := " + many("$\"{", 300) + "1" + many("}\"", 300), ""},
		"rules":        {strings.TrimPrefix(doublings(40, "[x%d, x%d]"), "package policy\n") + "\nallow if x40 == [[1]]\n", "too many times"},
		"locals":       {"allow if {\n\ta := [1]\n" + chainOf(30) + "\tb30 == [[1]]\n}\n", "too many times"},
		"qualified":    {strings.TrimPrefix(doublings(40, "[data.policy.x%d, data.policy.x%d]"), "package policy\n"), "too many times"},
		"long path":    {"x := input" + many(".a", 60000), ""},
		"long body":    {"allow if {\n" + many("\tinput.a == 1\n", 2000) + "}\n", ""},
		"many rules":   {many("allow if input.a == 1\n\n", 2000), ""},
		"large table":  {"x := {" + many("\"aaaa\", ", 20000) + "1}\n\nallow if input.a in x\n", ""},
		"recursion":    {"x := [y]\n\ny := [x]\n", "recursive"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			err := Check(Resource, "package policy\n\n"+c.text+"\n")
			if name == "interpolated" { // refused or not: in bounded time
				err = nil
			}
			if (err == nil) != (c.refused == "") || (err != nil && !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("%.300v", err)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func chainOf(n int) string {
	out := "\tb0 := [a, a]\n"
	for i := 1; i <= n; i++ {
		out += fmt.Sprintf("\tb%d := [b%d, b%d]\n", i, i-1, i-1)
	}
	return out
}

// Whatever a policy does, its caller has an answer in time, and the answer is
// not yes.
func TestPoliciesThatExplode(t *testing.T) {
	for name, text := range map[string]string{
		"shared result":  twice + "trust_claims := " + calls("f", 60) + "\n",
		"shared explain": twice + "trust_claims := {\"hardware\": 2}\n\nextensions := [{\"name\": \"n\", \"key\": 1, \"value\": " + calls("f", 60) + "}]\n",
		"arrays grow":    twice + "trust_claims := {\"hardware\": count(" + calls("g", 60) + ")}\n",
		"strings grow":   twice + "trust_claims := {\"hardware\": count(" + calls("h", 60) + ")}\n",
		"runaway":        "package policy\n\ntrust_claims := {\"hardware\": count([1 | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i == j + 200000])}\n",
		"deep result":    "package policy\n\ntrust_claims := " + strings.Repeat("[", 150) + strings.Repeat("]", 150) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.engine.runner.Deadline, b.engine.runner.Growth = 500*time.Millisecond, 64<<20
			b.put(t, Attestation, DefaultCPU, text)
			start := time.Now()
			a, err := b.engine.Appraise(t.Context(), DefaultCPU, json.RawMessage(`{}`))
			if !errors.Is(err, ErrEvaluation) {
				t.Fatalf("%+v: %v", a, err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// A text that got stuck once is not evaluated again, under any name; another
// text is.
func TestStuckPolicyIsQuarantined(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, allowAll)
	p, err := b.engine.judge(t.Context(), Resource, ResourcePolicy, 1, digestOf(allowAll))
	if err != nil {
		t.Fatal(err)
	}
	p.stuck.Store(true)
	b.put(t, Resource, "resource/prod", allowAll)
	for _, repo := range []string{"prod", "test"} {
		_, err := b.engine.Authorize(t.Context(), Release{Plugin: "resource", Path: []string{repo}, Claims: json.RawMessage(`{}`)})
		if !errors.Is(err, policylang.ErrStuck) || !errors.Is(err, ErrEvaluation) {
			t.Errorf("%s: %v", repo, err)
		}
	}
	b.put(t, Resource, ResourcePolicy, allowAll+"\n# mended\n")
	if !b.allows(t, Release{}) {
		t.Fatal("a new text does not decide")
	}
}

// Programs that are not used make room, and each text is compiled once.
func TestProgramsAreBounded(t *testing.T) {
	p := newPrograms()
	p.most = 3 * weight("")
	compiled := 0
	get := func(text string) {
		t.Helper()
		_, err := p.get(Resource, text, func() (string, error) {
			compiled++
			return "package policy\n\nallow := " + text + "\n", nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"1", "2", "1", "2", "3", "1", "3"} {
		get(text)
	}
	if compiled > 4 || p.sum > p.most || len(p.bySum) != p.order.Len() {
		t.Errorf("%d compilations, %d of %d bytes, %d programs", compiled, p.sum, p.most, p.order.Len())
	}
	if _, err := p.get(Resource, "bad", func() (string, error) { return "no rego", nil }); err == nil {
		t.Error("compiled")
	}
	if _, ok := p.bySum["resource/bad"]; ok {
		t.Error("a failure is kept")
	}
	var wg sync.WaitGroup
	compiled = 0
	for range 8 {
		wg.Go(func() { get("9") })
	}
	wg.Wait()
	if compiled != 1 {
		t.Errorf("%d compilations at the same time", compiled)
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add(defaultCPU, `{"snp":{"measurement":"aa"}}`)
	f.Add(defaultResource, `{"submods":{"cpu0":{"ear.status":"affirming"}}}`)
	f.Add("package policy\n\nallow if input.x > 1\n\ntrust_claims := input\n", `{"x":[1,{"y":null}]}`)
	b := newBench(f)
	b.engine.runner.Deadline = 200 * time.Millisecond
	f.Fuzz(func(t *testing.T, text, claims string) {
		in, err := ParseInput(json.RawMessage(claims))
		if err != nil {
			return
		}
		for _, kind := range []Kind{Attestation, Resource} {
			p, err := compile(t.Context(), kind, text)
			if err != nil {
				return
			}
			q := Question{Kind: kind, Input: in}
			start := time.Now()
			_, _ = b.engine.runner.ask(t.Context(), judge{p, "x"}, q, newLookups(b.refs))
			_, _ = b.engine.runner.explain(t.Context(), judge{p, "x"}, q, newLookups(b.refs), b.refs)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		}
	})
}
