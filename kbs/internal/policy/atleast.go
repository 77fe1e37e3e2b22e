package policy

import (
	"math/big"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"
)

// AtLeastFunction declares version_at_least(seen, least): whether a version is
// as new as the least one that is wanted, which usually comes from
// query_reference_value. A version is a number or a text of numbers with dots;
// where one has fewer parts, it is as if zeros followed. A list of least
// versions wants the highest of them: where several vouch for a minimum, the
// strictest counts. What cannot be compared is not at least anything.
var AtLeastFunction = &rego.Function{
	Name:        "version_at_least",
	Description: "Whether a version is as new as the least one that is wanted.",
	Decl:        types.NewFunction(types.Args(types.A, types.A), types.B),
}

// AtLeast implements the builtin.
func AtLeast(_ rego.BuiltinContext, seen, least *ast.Term) (*ast.Term, error) {
	v, ok := parseVersion(seen.Value)
	if !ok {
		return ast.BooleanTerm(false), nil
	}
	wanted := []ast.Value{least.Value}
	if list, is := least.Value.(*ast.Array); is {
		wanted = nil
		list.Foreach(func(t *ast.Term) { wanted = append(wanted, t.Value) })
	}
	for _, w := range wanted {
		bound, ok := parseVersion(w)
		if !ok || v.compare(bound) < 0 {
			return ast.BooleanTerm(false), nil
		}
	}
	return ast.BooleanTerm(len(wanted) > 0), nil
}

// dotted is a version: its numbers, the most significant first.
type dotted []*big.Int

// maxParts and maxDigits bound what is compared: no version is longer.
const (
	maxParts  = 16
	maxDigits = 40
)

func parseVersion(v ast.Value) (dotted, bool) {
	var text string
	switch v := v.(type) {
	case ast.String:
		text = string(v)
	case ast.Number:
		text = v.String()
	default:
		return nil, false
	}
	parts := strings.Split(text, ".")
	if len(parts) > maxParts {
		return nil, false
	}
	var out dotted
	for _, p := range parts {
		if p == "" || len(p) > maxDigits || strings.Trim(p, "0123456789") != "" {
			return nil, false
		}
		n, ok := new(big.Int).SetString(p, 10)
		if !ok {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}

func (d dotted) compare(o dotted) int {
	at := func(v dotted, i int) *big.Int {
		if i < len(v) {
			return v[i]
		}
		return new(big.Int)
	}
	for i := range max(len(d), len(o)) {
		if c := at(d, i).Cmp(at(o, i)); c != 0 {
			return c
		}
	}
	return 0
}
