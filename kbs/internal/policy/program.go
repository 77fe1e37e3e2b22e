package policy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// A SyntaxError tells an administrator where a policy is wrong.
type SyntaxError = policylang.SyntaxError

// packagePath is the package that every policy must declare (kbs-protocol 9).
const packagePath = "data.policy"

// The queries that are prepared for a policy. A comprehension around each rule
// makes an undefined one an empty list instead of no result at all, so that
// one evaluation answers for all of them.
const (
	queryAppraise = `[[x | x := data.policy.trust_claims], [x | x := data.policy.extensions]]`
	queryAllow    = `[[x | x := data.policy.allow; x == true]]`
	queryExplain  = `[[x | x := data.policy.explain]]`
)

var capabilities = sync.OnceValue(func() *ast.Capabilities {
	return policylang.Capabilities(&ast.Builtin{Name: queryFunction.Name, Decl: queryFunction.Decl},
		&ast.Builtin{Name: AtLeastFunction.Name, Decl: AtLeastFunction.Decl})
})

// program is the text of a policy, ready to be evaluated concurrently.
type program struct {
	kind     Kind
	module   *ast.Module
	decision rego.PreparedEvalQuery
	explain  rego.PreparedEvalQuery
	pure     bool // its answer depends on the question alone, not on the clock nor on reference values, which expire
	// stuck says that an evaluation ignored its end. The text is not evaluated
	// again.
	stuck atomic.Bool
}

// Check parses and compiles a policy text without keeping it. The error is a
// *SyntaxError for anything that its author can mend.
func Check(kind Kind, text string) error {
	_, err := compile(context.Background(), kind, text)
	return err
}

func compile(ctx context.Context, kind Kind, text string) (*program, error) {
	return compileFile(ctx, kind, "policy.rego", text)
}

func compileFile(ctx context.Context, kind Kind, file, text string) (*program, error) {
	return policylang.Compile(func() (*program, error) { return compileNow(ctx, kind, file, text) })
}

func compileNow(ctx context.Context, kind Kind, file, text string) (*program, error) {
	if len(text) > MaxSize {
		return nil, policylang.Refuse("policy is larger than %d bytes", MaxSize)
	}
	module, err := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{
		Capabilities: capabilities(), RegoVersion: ast.RegoV1,
	})
	if err != nil {
		return nil, policylang.Syntax(err)
	}
	if module == nil || module.Package.Path.String() != packagePath {
		return nil, policylang.Refuse(`1:1: the package must be "policy"`)
	}
	if err := checkComplexity(module); err != nil {
		return nil, err
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities())
	compiler.Compile(map[string]*ast.Module{file: module})
	if compiler.Failed() {
		return nil, policylang.Syntax(compiler.Errors)
	}
	c := &program{kind: kind, module: module, pure: policylang.Steady(compiler, queryFunction.Name)}
	query := queryAllow
	if kind == Attestation {
		query = queryAppraise
	}
	if c.decision, err = prepare(ctx, compiler, query); err != nil {
		return nil, err
	}
	c.explain, err = prepare(ctx, compiler, queryExplain)
	return c, err
}

func prepare(ctx context.Context, compiler *ast.Compiler, query string) (rego.PreparedEvalQuery, error) {
	q, err := rego.New(
		rego.Compiler(compiler),
		rego.Capabilities(capabilities()),
		rego.Query(query),
		rego.Store(documents{}),
		rego.Function1(queryFunction, queryReferenceValue),
		rego.Function2(AtLeastFunction, AtLeast),
	).PrepareForEval(ctx)
	if err != nil {
		return q, fmt.Errorf("prepare %s: %w", query, err)
	}
	return q, nil
}

// line returns where the module defines a rule, its conditional bodies before
// its default; 0 if it has no such rule.
func (c *program) line(rule string) int {
	row := 0
	for _, r := range c.module.Rules {
		if r.Head.Name.String() != rule && r.Head.Ref().String() != rule {
			continue
		}
		if !r.Default {
			return r.Location.Row
		}
		row = r.Location.Row
	}
	return row
}
