package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// A SyntaxError tells an administrator where a policy is wrong.
type SyntaxError struct{ Problems []string }

// Error lists all problems, each with its line and column.
func (e *SyntaxError) Error() string { return strings.Join(e.Problems, "; ") }

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

// forbidden builtins reach outside the policy (the network, the process, other
// modules, the trace log), or can spend without limit within a single call,
// where no deadline interrupts them. Policies that use one do not compile.
func forbidden(name string) bool {
	switch name {
	case "http.send", "opa.runtime", "rego.parse_module", "rego.metadata.chain", "rego.metadata.rule",
		"trace", "rand.intn", "uuid.rfc4122", "bits.lsh", "graph.reachable_paths",
		"json.match_schema", "json.verify_schema":
		return true
	}
	for _, family := range []string{"net.", "providers.", "graphql."} {
		if strings.HasPrefix(name, family) {
			return true
		}
	}
	return false
}

var capabilities = sync.OnceValue(func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	kept := c.Builtins[:0:0]
	for _, b := range c.Builtins {
		if !forbidden(b.Name) {
			kept = append(kept, b)
		}
	}
	c.Builtins = append(kept, &ast.Builtin{Name: queryFunction.Name, Decl: queryFunction.Decl},
		&ast.Builtin{Name: AtLeastFunction.Name, Decl: AtLeastFunction.Decl})
	c.AllowNet = []string{}
	return c
})

// program is the text of a policy, ready to be evaluated concurrently.
type program struct {
	kind     Kind
	module   *ast.Module
	decision rego.PreparedEvalQuery
	explain  rego.PreparedEvalQuery
	pure     bool // its answer depends on the question alone
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

// compileDeadline limits a compilation, which cannot be interrupted: one that
// takes longer is left behind. The limits of complexity are there so that it
// does not come to this.
const compileDeadline = 20 * time.Second

func compile(ctx context.Context, kind Kind, text string) (*program, error) {
	return compileFile(ctx, kind, "policy.rego", text)
}

func compileFile(ctx context.Context, kind Kind, file, text string) (*program, error) {
	type result struct {
		p   *program
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil { // of the library's: see outcome
				r = result{err: &SyntaxError{[]string{fmt.Sprintf("the compiler panicked: %v", p)}}}
			}
			done <- r
		}()
		r.p, r.err = compileNow(ctx, kind, file, text)
	}()
	timer := time.NewTimer(compileDeadline)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.p, r.err
	case <-timer.C:
		return nil, &SyntaxError{[]string{"it takes too long to compile"}}
	}
}

func compileNow(ctx context.Context, kind Kind, file, text string) (*program, error) {
	if len(text) > MaxSize {
		return nil, &SyntaxError{[]string{fmt.Sprintf("policy is larger than %d bytes", MaxSize)}}
	}
	module, err := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{
		Capabilities: capabilities(), RegoVersion: ast.RegoV1,
	})
	if err != nil {
		return nil, syntaxError(err)
	}
	if module == nil || module.Package.Path.String() != packagePath {
		return nil, &SyntaxError{[]string{`1:1: the package must be "policy"`}}
	}
	if err := checkComplexity(module); err != nil {
		return nil, err
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities())
	compiler.Compile(map[string]*ast.Module{file: module})
	if compiler.Failed() {
		return nil, syntaxError(compiler.Errors)
	}
	c := &program{kind: kind, module: module, pure: pure(compiler)}
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

// maxProblems limits what an author is told at once.
const maxProblems = 20

// syntaxError turns the compiler's errors into line:column texts.
func syntaxError(err error) error {
	var all ast.Errors
	if !errors.As(err, &all) {
		return &SyntaxError{[]string{err.Error()}}
	}
	out := &SyntaxError{}
	for _, e := range all[:min(len(all), maxProblems)] {
		text := e.Code + ": " + e.Message
		if e.Location != nil {
			text = fmt.Sprintf("%d:%d: %s", e.Location.Row, e.Location.Col, text)
		}
		out.Problems = append(out.Problems, text)
	}
	return out
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
