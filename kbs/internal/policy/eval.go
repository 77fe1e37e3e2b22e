package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// ErrEvaluation says that a policy could not be evaluated: it took too long,
// two rules disagreed, or its result has the wrong type. Nothing was decided.
var ErrEvaluation = errors.New("policy: evaluation failed")

// Engine evaluates the policies in force. It is safe for concurrent use.
type Engine struct {
	*Host

	docs  *Documents
	refs  References
	index atomic.Pointer[index]
}

// Question is what a policy is asked.
type Question struct {
	Kind    Kind
	ID      string // attestation: the policy that is asked
	Release Release
	Input   Input
}

// answer is what a program says to a question.
type answer struct {
	allow      bool
	vector     token.Vector // attestation only
	extensions []Extension  // attestation only
}

// options of an evaluation of this question.
func (q Question) options() []rego.EvalOption {
	opts := []rego.EvalOption{rego.EvalParsedInput(q.Input.value), rego.EvalGenerateJSON(boundedJSON)}
	if q.Kind == Resource {
		opts = append(opts, rego.EvalTransaction(q.Release.transaction()))
	}
	return opts
}

// ask evaluates the decision of a program.
func (r *runner) ask(ctx context.Context, p judge, q Question, l *lookups, more ...rego.EvalOption) (answer, error) {
	out, err := r.eval(ctx, p, p.decision, l, append(q.options(), more...)...)
	if err != nil {
		return answer{}, err
	}
	if q.Kind == Resource {
		allow, _ := defined(out, 0)
		return answer{allow: allow == true}, nil
	}
	a := answer{}
	if a.vector, err = vector(out); err != nil {
		return answer{}, fmt.Errorf("%w: %s: trust_claims: %w", ErrEvaluation, p.ref, err)
	}
	if a.extensions, err = extensions(out); err != nil {
		return answer{}, fmt.Errorf("%w: %s: extensions: %w", ErrEvaluation, p.ref, err)
	}
	a.allow = a.vector.Status() == token.Affirming
	return a, nil
}

// eval evaluates one prepared query within the limits and returns the list
// that it yields.
func (r *runner) eval(ctx context.Context, p judge, q rego.PreparedEvalQuery, l *lookups, opts ...rego.EvalOption) ([]any, error) {
	if p.stuck.Load() {
		return nil, fmt.Errorf("%w: %s: %w", ErrEvaluation, p.ref, policylang.ErrStuck)
	}
	out, err := policylang.Run(ctx, r.Runner, func(ctx context.Context, cancel topdown.Cancel) ([]any, error) {
		rs, err := q.Eval(l.with(ctx), append(opts, rego.EvalExternalCancel(cancel))...)
		if err != nil {
			return nil, err
		}
		if len(rs) != 1 || len(rs[0].Expressions) != 1 {
			return nil, fmt.Errorf("%d results", len(rs))
		}
		out, ok := rs[0].Expressions[0].Value.([]any)
		if !ok {
			return nil, fmt.Errorf("result is %T", rs[0].Expressions[0].Value)
		}
		return out, nil
	})
	if errors.Is(err, policylang.ErrStuck) {
		p.stuck.Store(true)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrEvaluation, p.ref, err)
	}
	return out, nil
}

// defined returns the value of the i-th rule of a query, if it is defined.
func defined(out []any, i int) (any, bool) {
	if i >= len(out) {
		return nil, false
	}
	list, ok := out[i].([]any)
	if !ok || len(list) != 1 {
		return nil, false
	}
	return list[0], true
}

// Extension is a member that an attestation policy adds to an appraisal.
type Extension struct {
	Name  string
	Value any
}

// Appraisal is the result of an attestation policy.
type Appraisal struct {
	Policy     string // the version that judged, as of Ref
	Vector     token.Vector
	Extensions []Extension
}

// Appraise evaluates an attestation policy over the claims of kbs-protocol
// 9.2. Undefined trust_claims are eight zeros, which affirm nothing.
func (e *Engine) Appraise(ctx context.Context, id string, input json.RawMessage) (Appraisal, error) {
	in, err := ParseInput(input)
	if err != nil {
		return Appraisal{}, err
	}
	ref, a, err := e.decide(ctx, Question{Kind: Attestation, ID: id, Input: in})
	if err != nil {
		return Appraisal{}, err
	}
	return Appraisal{Policy: ref, Vector: a.vector, Extensions: a.extensions}, nil
}

// Decision is the answer of a resource policy.
type Decision struct {
	Policy string // the version that decided, as of Ref
	Allow  bool
}

// Authorize asks the most specific resource policy in force about a release by
// any plugin: of PLUGIN/a/b/c, PLUGIN/a/b, PLUGIN/a and resource-policy the
// first that there is. Only the boolean true allows.
func (e *Engine) Authorize(ctx context.Context, r Release) (Decision, error) {
	in, err := r.input()
	if err != nil {
		return Decision{}, err
	}
	ref, a, err := e.decide(ctx, Question{Kind: Resource, Release: r, Input: in})
	return Decision{Policy: ref, Allow: a.allow}, err
}

// decide asks the policy in force, and tells the witness.
func (e *Engine) decide(ctx context.Context, q Question) (string, answer, error) {
	x, err := e.current(ctx)
	if err != nil {
		return "", answer{}, err
	}
	id, shadow := x.names(q)
	p, err := e.enforced(ctx, x, q.Kind, id)
	if err != nil {
		return "", answer{}, err
	}
	a, err := e.answer(ctx, x, p, q)
	o := observation{engine: e, q: q, policy: p.ref, verdict: verdictOf(a, err)}
	if shadow != "" {
		part := x.parts[indexName(q.Kind, shadow)]
		o.shadow = &shadowed{shadow, part.shadow, part.shadowSum}
	}
	e.recorder.observe(o)
	return p.ref, a, err
}

// answer asks a program, unless it has answered this before.
func (e *Engine) answer(ctx context.Context, x *index, p judge, q Question) (answer, error) {
	question := ""
	if q.Kind == Resource {
		question = q.Input.memo.question(p, q.Release)
	}
	if allow, ok := q.Input.memo.find(x, question); ok {
		return answer{allow: allow}, nil
	}
	a, err := e.runner.ask(ctx, p, q, e.lookups(x))
	if err == nil {
		q.Input.memo.remember(x, question, a.allow)
	}
	return a, err
}

// names returns the policy that a question goes to, and that whose shadow is
// asked beside it.
func (x *index) names(q Question) (enforce, shadow string) {
	if q.Kind == Resource {
		return x.resource(q.Release.Plugin, q.Release.Path)
	}
	if x.parts[indexName(q.Kind, q.ID)].shadow != 0 {
		shadow = q.ID
	}
	return q.ID, shadow
}

// enforced returns the program in force under a name.
func (e *Engine) enforced(ctx context.Context, x *index, kind Kind, id string) (judge, error) {
	part := x.parts[indexName(kind, id)]
	if part.enforce == 0 {
		return judge{}, fmt.Errorf("policy %s/%s is not in force: %w", kind, id, store.ErrNotFound)
	}
	return e.judge(ctx, kind, id, part.enforce, part.enforceSum)
}

func vector(out []any) (token.Vector, error) {
	v := token.Vector{}
	raw, ok := defined(out, 0)
	if !ok {
		for _, name := range token.ClaimNames {
			v[name] = 0
		}
		return v, nil
	}
	members, ok := raw.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("not an object but %T", raw)
	}
	for name, value := range members {
		n, ok := value.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s is not a number", name)
		}
		i, err := strconv.ParseInt(n.String(), 10, 8)
		if err != nil {
			return nil, fmt.Errorf("%s is not an integer from -128 to 127", name)
		}
		v[name] = int8(i)
	}
	return v, v.Validate()
}

func extensions(out []any) ([]Extension, error) {
	raw, ok := defined(out, 1)
	if !ok {
		return nil, nil
	}
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("not an array but %T", raw)
	}
	var exts []Extension
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, _ := m["name"].(string)
		if _, isNumber := m["key"].(json.Number); name == "" || !isNumber {
			return nil, errors.New("each needs a name and a numeric key")
		}
		if m["value"] != nil {
			exts = append(exts, Extension{Name: name, Value: m["value"]})
		}
	}
	return exts, nil
}

// Missing names the first of the given policies that cannot be evaluated.
func (e *Engine) Missing(ctx context.Context, ps ...api.Policy) (string, error) {
	x, err := e.current(ctx)
	for _, p := range ps {
		if err == nil {
			_, err = e.enforced(ctx, x, Kind(p.Kind), p.ID)
		}
		if err != nil {
			return p.Kind + "/" + p.ID, err
		}
	}
	return "", err
}
