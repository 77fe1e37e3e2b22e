package policy

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Input is a parsed set of claims. Parsing costs more than many a decision, so
// whoever asks several times about the same claims, as a token's holder does,
// parses them once. It is immutable and safe for concurrent use; the zero
// Input has no claims.
type Input struct {
	raw   json.RawMessage
	value ast.Value
	memo  *memo
}

// ParseInput parses claims, which must not be changed afterwards.
func ParseInput(raw json.RawMessage) (Input, error) {
	v, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		return Input{}, fmt.Errorf("%w: input: %w", ErrEvaluation, err)
	}
	return Input{raw: raw, value: v, memo: &memo{}}, nil
}

// Release is a question to the resource policies. Of Input and Claims one is
// enough.
type Release struct {
	Plugin string
	Path   []string // after the plugin
	Query  map[string]string
	Claims json.RawMessage // of the verified token
	Input  Input           // the same, parsed
}

func (r Release) input() (Input, error) {
	if r.Input.value != nil {
		return r.Input, nil
	}
	return ParseInput(r.Claims)
}

// transaction holds the documents of kbs-protocol 9.1.
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
