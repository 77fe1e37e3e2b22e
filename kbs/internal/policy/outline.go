package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// RuleOutline is what the rules of one name in a policy look at.
type RuleOutline struct {
	Rule       string   `json:"rule"`
	Lines      []int    `json:"lines"` // where each of its definitions begins
	Reads      []string `json:"reads"` // claims (input...) and documents (data...)
	References []string `json:"reference_values"`
}

// Outline reads a policy for people: its rules in the order of the text. The
// error is a *SyntaxError.
func Outline(kind Kind, text string) ([]RuleOutline, error) {
	if err := Check(kind, text); err != nil {
		return nil, err
	}
	module, err := ast.ParseModuleWithOpts("policy.rego", text, ast.ParserOptions{Capabilities: capabilities(), RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, policylang.Syntax(err)
	}
	out := []RuleOutline{}
	at := map[string]int{}
	for _, r := range module.Rules {
		name := r.Head.Ref().GroundPrefix().String()
		i, known := at[name]
		if !known {
			i = len(out)
			at[name] = i
			out = append(out, RuleOutline{Rule: name, Reads: []string{}, References: []string{}})
		}
		out[i].Lines = append(out[i].Lines, r.Location.Row)
		look(r, &out[i])
	}
	for i := range out {
		for _, list := range []*[]string{&out[i].Reads, &out[i].References} {
			slices.Sort(*list)
			*list = slices.Compact(*list)
		}
	}
	return out, nil
}

func look(r *ast.Rule, o *RuleOutline) {
	ast.WalkRefs(r, func(ref ast.Ref) bool {
		if head, ok := ref[0].Value.(ast.Var); ok && (head == "input" || head == "data") {
			o.Reads = append(o.Reads, ref.GroundPrefix().String())
		}
		return false
	})
	asked := func(operator *ast.Term, operands []*ast.Term) {
		if operator.Value.String() != queryFunction.Name || len(operands) == 0 {
			return
		}
		name := "(computed)"
		if s, ok := operands[0].Value.(ast.String); ok {
			name = string(s)
		}
		o.References = append(o.References, name)
	}
	ast.WalkTerms(r, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok {
			asked(call[0], call[1:])
		}
		return false
	})
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		if terms, ok := e.Terms.([]*ast.Term); ok && e.IsCall() {
			asked(terms[0], terms[1:])
		}
		return false
	})
}
