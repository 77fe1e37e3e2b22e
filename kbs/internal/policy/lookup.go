package policy

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
)

// References are the reference values. Query answers query_reference_value;
// nil is null in Rego. Nearest serves explanations only.
type References interface {
	refvalue.Querier
	Nearest(ctx context.Context, prefix, seen string) (refvalue.Match, error)
}

// queryFunction declares query_reference_value(name) (kbs-protocol 9.2).
// Nondeterministic keeps the compiler from folding calls away.
var queryFunction = &rego.Function{
	Name:             "query_reference_value",
	Description:      "The reference value of the given name, or null.",
	Decl:             types.NewFunction(types.Args(types.S), types.A),
	Memoize:          true,
	Nondeterministic: true,
}

// lookups are the reference values that one evaluation asked for.
type lookups struct {
	from  refvalue.Querier
	names []string // in the order of the first question
	value map[string]value
}

type lookupsKey struct{}

// with hands the lookups to the builtin through the context of the evaluation:
// OPA gives a custom function nothing else that belongs to one call.
func (l *lookups) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, lookupsKey{}, l)
}

func newLookups(q refvalue.Querier) *lookups {
	return &lookups{from: q, value: map[string]value{}}
}

// queryReferenceValue implements the builtin. A failure of the store halts the
// evaluation: an unknown value must not look like an absent one.
func queryReferenceValue(bctx rego.BuiltinContext, arg *ast.Term) (*ast.Term, error) {
	name, ok := arg.Value.(ast.String)
	if !ok {
		return nil, rego.NewHaltError(fmt.Errorf("query_reference_value wants a string"))
	}
	l, ok := bctx.Context.Value(lookupsKey{}).(*lookups)
	if !ok || l.from == nil {
		return nil, rego.NewHaltError(fmt.Errorf("no reference values in this evaluation"))
	}
	v, err := l.query(bctx.Context, string(name))
	if err != nil {
		return nil, rego.NewHaltError(err)
	}
	if v.term == nil {
		return ast.NullTerm(), nil
	}
	return ast.NewTerm(v.term), nil
}

func (l *lookups) query(ctx context.Context, name string) (value, error) {
	if v, known := l.value[name]; known {
		return v, nil
	}
	v, err := l.read(ctx, name)
	if err != nil {
		return value{}, fmt.Errorf("reference value %q: %w", name, err)
	}
	l.names = append(l.names, name)
	l.value[name] = v
	return v, nil
}

func (l *lookups) read(ctx context.Context, name string) (value, error) {
	if kept, ok := l.from.(*values); ok {
		return kept.get(ctx, name)
	}
	raw, err := l.from.Query(ctx, name)
	if err != nil {
		return value{}, err
	}
	return parseValue(raw)
}
