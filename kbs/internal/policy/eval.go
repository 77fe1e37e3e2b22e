package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// Deadline limits one evaluation.
const Deadline = 2 * time.Second

// ErrEvaluation says that a policy could not be evaluated: it took too long,
// two rules disagreed, or its result has the wrong type. Nothing was decided.
var ErrEvaluation = errors.New("policy: evaluation failed")

// Engine evaluates stored policies. It is safe for concurrent use.
type Engine struct {
	docs     *Documents
	refs     References
	deadline time.Duration

	mu    sync.Mutex
	cache map[string]cached // by kind/id: only the newest version is kept
}

type cached struct {
	version int64
	policy  *compiled
}

// NewEngine returns an engine over the stored policies and reference values.
func NewEngine(docs *Documents, refs References) *Engine {
	return &Engine{docs: docs, refs: refs, deadline: Deadline, cache: map[string]cached{}}
}

// load returns the current version of a policy, compiled. Every replica reads
// the version from the store, so a change bites everywhere at once.
func (e *Engine) load(ctx context.Context, kind Kind, id string) (*compiled, error) {
	p, err := e.docs.Get(ctx, kind, id)
	if err != nil {
		return nil, fmt.Errorf("policy %s/%s: %w", kind, id, err)
	}
	name := string(kind) + "/" + id
	e.mu.Lock()
	hit, ok := e.cache[name]
	e.mu.Unlock()
	if ok && hit.version == p.Version {
		return hit.policy, nil
	}
	c, err := compile(ctx, kind, Ref(kind, id, p.Version), p.Rego)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrEvaluation, name, err)
	}
	e.mu.Lock()
	e.cache[name] = cached{p.Version, c}
	e.mu.Unlock()
	return c, nil
}

// run evaluates one prepared query and returns the list it yields.
func (e *Engine) run(ctx context.Context, q rego.PreparedEvalQuery, l *lookups, opts ...rego.EvalOption) ([]any, error) {
	ctx, cancel := context.WithTimeout(ctx, e.deadline)
	defer cancel()
	rs, err := q.Eval(l.with(ctx), opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvaluation, err)
	}
	if len(rs) != 1 || len(rs[0].Expressions) != 1 {
		return nil, fmt.Errorf("%w: %d results", ErrEvaluation, len(rs))
	}
	out, ok := rs[0].Expressions[0].Value.([]any)
	if !ok {
		return nil, fmt.Errorf("%w: result is %T", ErrEvaluation, rs[0].Expressions[0].Value)
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
	c, err := e.load(ctx, Attestation, id)
	if err != nil {
		return Appraisal{}, err
	}
	in, err := parseInput(input)
	if err != nil {
		return Appraisal{}, err
	}
	out, err := e.run(ctx, c.decision, newLookups(e.refs), rego.EvalParsedInput(in))
	if err != nil {
		return Appraisal{}, fmt.Errorf("%s: %w", c.ref, err)
	}
	a := Appraisal{Policy: c.ref}
	if a.Vector, err = vector(out); err != nil {
		return Appraisal{}, fmt.Errorf("%w: %s: trust_claims: %w", ErrEvaluation, c.ref, err)
	}
	if a.Extensions, err = extensions(out); err != nil {
		return Appraisal{}, fmt.Errorf("%w: %s: extensions: %w", ErrEvaluation, c.ref, err)
	}
	return a, nil
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

// Release is a question to the resource policy.
type Release struct {
	Plugin string
	Path   []string
	Query  map[string]string
	Claims json.RawMessage // of the verified token
}

func (r Release) transaction() *transaction {
	path := make([]any, len(r.Path))
	for i, p := range r.Path {
		path[i] = p
	}
	query := make(map[string]any, len(r.Query))
	for k, v := range r.Query {
		query[k] = v
	}
	return &transaction{root: map[string]any{"plugin": r.Plugin, "resource-path": path, "query": query}}
}

// Decision is the answer of the resource policy.
type Decision struct {
	Policy string // the version that decided, as of Ref
	Allow  bool
}

// Authorize evaluates the resource policy. Only the boolean true allows.
func (e *Engine) Authorize(ctx context.Context, r Release) (Decision, error) {
	c, err := e.load(ctx, Resource, ResourcePolicy)
	if err != nil {
		return Decision{}, err
	}
	in, err := parseInput(r.Claims)
	if err != nil {
		return Decision{}, err
	}
	out, err := e.run(ctx, c.decision, newLookups(e.refs),
		rego.EvalParsedInput(in), rego.EvalTransaction(r.transaction()))
	if err != nil {
		return Decision{Policy: c.ref}, fmt.Errorf("%s: %w", c.ref, err)
	}
	allow, _ := defined(out, 0)
	return Decision{Policy: c.ref, Allow: allow == true}, nil
}

func parseInput(raw json.RawMessage) (ast.Value, error) {
	v, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: input: %w", ErrEvaluation, err)
	}
	return v, nil
}

// Missing reports whether a policy is not there at all.
func (e *Engine) Missing(ctx context.Context, ps ...api.Policy) (string, error) {
	for _, p := range ps {
		if _, err := e.load(ctx, Kind(p.Kind), p.ID); err != nil {
			return p.Kind + "/" + p.ID, err
		}
	}
	return "", nil
}
