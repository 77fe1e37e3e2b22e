package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Explanation says why a policy did not hold. It names reference values and
// the policy's inside, so it is for administrators only.
type Explanation struct {
	Policy   string // as of Ref
	Rule     string
	Line     int // of the expression that failed, or else of the rule
	Findings []api.Finding
}

// ExplainAppraisal says why a vector is not affirming, over the input that
// Appraise had.
func (e *Engine) ExplainAppraisal(ctx context.Context, id string, input json.RawMessage) (Explanation, error) {
	in, err := ParseInput(input)
	if err != nil {
		return Explanation{}, err
	}
	return e.explain(ctx, Question{Kind: Attestation, ID: id, Input: in})
}

// ExplainRelease says why the resource policy did not allow.
func (e *Engine) ExplainRelease(ctx context.Context, r Release) (Explanation, error) {
	in, err := r.input()
	if err != nil {
		return Explanation{}, err
	}
	return e.explain(ctx, Question{Kind: Resource, Release: r, Input: in})
}

func (e *Engine) explain(ctx context.Context, q Question) (Explanation, error) {
	x, err := e.current(ctx)
	if err != nil {
		return Explanation{}, err
	}
	id, _ := x.names(q)
	p, err := e.enforced(ctx, x, q.Kind, id)
	if err != nil {
		return Explanation{}, err
	}
	return e.runner.explain(ctx, p, q, e.lookups(x), e.refs)
}

// rule is the one that decides a kind of question.
func (q Question) rule() string {
	if q.Kind == Resource {
		return "allow"
	}
	return "trust_claims"
}

// explain evaluates the decision again under a tracer, then the policy's own
// `explain` rule. A policy without one is explained by the reference values it
// asked for and no claim had.
func (r *runner) explain(ctx context.Context, p judge, q Question, l *lookups, refs References) (Explanation, error) {
	rule := q.rule()
	x := Explanation{Policy: p.ref, Rule: rule}
	t := &failures{rules: map[uint64]string{}, line: map[string]int{}}
	if _, err := r.eval(ctx, p, p.decision, l, append(q.options(), rego.EvalQueryTracer(t))...); err != nil {
		return x, err
	}
	out, err := r.eval(ctx, p, p.explain, l, q.options()...)
	if err != nil {
		return x, err
	}
	claims, err := ast.JSON(q.Input.value)
	if err != nil {
		return x, err
	}
	own, _ := defined(out, 0)
	list, _ := own.([]any)
	for _, item := range list {
		f, failed, ok := ownFinding(item)
		if !ok {
			continue
		}
		if x.Rule == rule && failed != "" {
			x.Rule = failed
		}
		x.Findings = append(x.Findings, f)
	}
	if p.line("explain") == 0 {
		x.Findings = l.unmatched(leaves(claims))
	}
	for i, f := range x.Findings {
		if len(f.Wanted) == 0 && f.Seen == "" {
			continue
		}
		m, err := refs.Nearest(ctx, "", f.Seen)
		if err != nil {
			return x, err
		}
		x.Findings[i].Nearest = m.Name
	}
	x.Line = cmp.Or(t.line[x.Rule], p.line(x.Rule), p.line(rule))
	return x, nil
}

// ownFinding reads {"claim","seen","wanted","rule"} as a policy wrote it.
func ownFinding(item any) (f api.Finding, rule string, ok bool) {
	m, _ := item.(map[string]any)
	f.Claim, ok = m["claim"].(string)
	rule, _ = m["rule"].(string)
	f.Seen = render(m["seen"])
	f.Wanted = wanted(m["wanted"])
	return f, rule, ok
}

// unmatched returns a finding for every reference value that none of the
// claims has. Which claim was meant is guessed from the names.
func (l *lookups) unmatched(claims map[string]string) []api.Finding {
	var out []api.Finding
	for _, name := range l.names {
		want := wanted(decodeJSON(l.value[name].raw))
		f := api.Finding{Claim: name, Wanted: want}
		matched := false
		for _, claim := range sortedKeys(claims) {
			seen := claims[claim]
			matched = matched || slices.Contains(want, seen)
			if f.Claim == name && (claim == name || strings.HasSuffix(name, "_"+claim)) {
				f.Claim, f.Seen = claim, seen
			}
		}
		if !matched {
			out = append(out, f)
		}
	}
	return out
}

// leaves flattens a JSON value: every scalar under the last name on its way.
func leaves(v any) map[string]string {
	out := map[string]string{}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, member := range v {
				walk(k, member)
			}
		case []any:
			for _, item := range v {
				walk(name, item)
			}
		default:
			out[name] = render(v)
		}
	}
	walk("", v)
	return out
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func decodeJSON(raw json.RawMessage) any {
	if raw == nil {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func wanted(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		out := make([]string, len(v))
		for i, item := range v {
			out[i] = render(item)
		}
		return out
	default:
		return []string{render(v)}
	}
}

// render shows a value as an administrator would write it: text bare, all else
// as JSON.
func render(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(raw)
}

// failures is a tracer that remembers, for every rule, the line of the last
// expression of its own body that did not hold.
type failures struct {
	rules map[uint64]string // rule by query id
	line  map[string]int
}

// Enabled says that every event is wanted.
func (*failures) Enabled() bool { return true }

// Config asks for no variable bindings: only places are looked at.
func (*failures) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent takes one event of the evaluation.
func (f *failures) TraceEvent(ev topdown.Event) {
	switch ev.Op {
	case topdown.EnterOp:
		if r, ok := ev.Node.(*ast.Rule); ok {
			f.rules[ev.QueryID] = r.Head.Ref().String()
		}
	case topdown.FailOp:
		if rule, ok := f.rules[ev.QueryID]; ok && ev.Location != nil {
			f.line[rule] = ev.Location.Row
		}
	default: // no other event says where a rule began or failed
	}
}
