package policy

import (
	"encoding/json"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// maxResult limits the values in the result of one evaluation: scalars count
// their bytes, every value at least one. A few lines of Rego can share one
// small array a billion times; it is small only until somebody copies it.
const maxResult = 1 << 20

const maxResultDepth = 100

var errResult = errors.New("its result is too large")

// boundedJSON converts a result of Rego for OPA, which has no limit of its
// own. Sets become arrays.
func boundedJSON(t *ast.Term, _ *rego.EvalContext) (any, error) {
	budget := maxResult
	return toJSON(t.Value, &budget, maxResultDepth)
}

func toJSON(v ast.Value, budget *int, depth int) (any, error) {
	*budget--
	if s, ok := v.(ast.String); ok {
		*budget -= len(s)
	}
	if *budget < 0 || depth == 0 {
		return nil, errResult
	}
	switch v := v.(type) {
	case ast.Null:
		return nil, nil
	case ast.Boolean:
		return bool(v), nil
	case ast.Number:
		return json.Number(v), nil
	case ast.String:
		return string(v), nil
	case *ast.Array:
		return listJSON(v.Len(), v.Iter, budget, depth)
	case ast.Set:
		return listJSON(v.Len(), v.Iter, budget, depth)
	case ast.Object:
		out := map[string]any{}
		err := v.Iter(func(key, value *ast.Term) error {
			name, ok := key.Value.(ast.String)
			if !ok {
				return errors.New("its result has a key that is not a string")
			}
			*budget -= len(name)
			item, err := toJSON(value.Value, budget, depth-1)
			out[string(name)] = item
			return err
		})
		return out, err
	}
	return nil, errors.New("its result is not a value")
}

func listJSON(n int, iter func(func(*ast.Term) error) error, budget *int, depth int) (any, error) {
	if n > *budget {
		return nil, errResult
	}
	out := make([]any, 0, n)
	err := iter(func(t *ast.Term) error {
		item, err := toJSON(t.Value, budget, depth-1)
		out = append(out, item)
		return err
	})
	return out, err
}
