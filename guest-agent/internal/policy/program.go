package policy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// A SyntaxError tells a policy's author where it is wrong.
type SyntaxError = policylang.SyntaxError

const (
	packageName = "agent_policy"
	// maxText bounds a policy in bytes (kata-agent 3.5).
	maxText = 16 << 20
	// maxGrowth is how much the heap of the process may grow, in bytes, while a
	// slow evaluation runs.
	maxGrowth = 64 << 20
)

// program is the text of a policy, ready to be evaluated concurrently.
type program struct {
	compiler *ast.Compiler
	rules    map[string]*rule // by request
	pins     pins
	keys     *rule // volume_keys; nil without, as are the next two
	// deviceKeys is device_keys, and emptyDirs is empty_dirs.
	deviceKeys, emptyDirs *rule
	failOpen              bool // AllowRequestsFailingPolicy: the policy's own word for learning
	bytes                 bool // it may read bytes of the input
	steady                bool // its answers depend on input and notes alone
	runner                *policylang.Runner
	// stuck says that an evaluation ignored its end. Then nothing is evaluated
	// any more.
	stuck atomic.Bool
}

// rule answers for one request.
type rule struct {
	query    ast.Body
	compiler ast.QueryCompiler
	// constant is the answer of a rule that depends on nothing.
	constant *answer
	failure  error // of a constant
}

var capabilities = sync.OnceValue(func() *ast.Capabilities { return policylang.Capabilities() })

// Check says whether a text is a policy that an agent would take. The error is a
// *SyntaxError for what its author can mend.
func Check(ctx context.Context, text string) error {
	_, err := compile(ctx, text)
	return err
}

func compile(ctx context.Context, text string) (*program, error) {
	return policylang.Compile(func() (*program, error) { return compileNow(ctx, text) })
}

func compileNow(ctx context.Context, text string) (*program, error) {
	module, err := parse(text)
	if err != nil {
		return nil, err
	}
	if module == nil || module.Package.Path.String() != "data."+packageName {
		return nil, policylang.Refuse("1:1: the package must be %q", packageName)
	}
	c := ast.NewCompiler().WithCapabilities(capabilities()).WithEnablePrintStatements(true)
	c.Compile(map[string]*ast.Module{policyFile: module})
	if c.Failed() {
		return nil, policylang.Syntax(c.Errors)
	}
	p := &program{compiler: c, runner: policylang.NewRunner(0, maxGrowth), rules: map[string]*rule{}, bytes: readsBytes(c), steady: policylang.Steady(c)}
	for _, name := range requests() {
		r, err := p.rule(ctx, name)
		if err != nil {
			return nil, err
		}
		if r != nil {
			p.rules[name] = r
		}
	}
	if p.failOpen, err = p.flag(ctx, "AllowRequestsFailingPolicy"); err != nil {
		return nil, err
	}
	for name, r := range map[string]**rule{keysRule: &p.keys, deviceKeysRule: &p.deviceKeys, emptyDirsRule: &p.emptyDirs} {
		if *r, err = p.rule(ctx, name); err != nil {
			return nil, err
		}
	}
	p.pins, err = p.pinned(ctx)
	return p, err
}

const policyFile = "policy.rego"

// parse takes both versions of the language: the field's policies are written in
// the older one, where a body needs no "if".
func parse(text string) (*ast.Module, error) {
	if len(text) > maxText {
		return nil, policylang.Refuse("the policy is larger than %d bytes", maxText)
	}
	module, err := ast.ParseModuleWithOpts(policyFile, text, ast.ParserOptions{Capabilities: capabilities(), RegoVersion: ast.RegoV1})
	if err == nil {
		return module, nil
	}
	older, olderErr := ast.ParseModuleWithOpts(policyFile, text, ast.ParserOptions{Capabilities: capabilities(), RegoVersion: ast.RegoV0})
	if olderErr == nil {
		return older, nil
	}
	return nil, policylang.Syntax(err)
}

// requests are the messages that the service takes: the names of the rules.
func requests() []string {
	services := agent.File_agent_agent_proto.Services()
	seen := map[string]bool{}
	var names []string
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			if name := string(methods.Get(j).Input().Name()); !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// result is the variable of a query that a rule's value is bound to.
const result = ast.Var("result")

func ref(name string) ast.Ref {
	return ast.Ref{ast.DefaultRootDocument, ast.StringTerm(packageName), ast.StringTerm(name)}
}

// rule prepares a query, nil for a rule that there is not. What depends on
// nothing is evaluated now.
func (p *program) rule(ctx context.Context, name string) (*rule, error) {
	if len(p.compiler.GetRulesWithPrefix(ref(name))) == 0 { // also those of single members, name["x"]
		return nil, nil
	}
	r := &rule{compiler: p.compiler.QueryCompiler()}
	var err error
	if r.query, err = r.compiler.Compile(ast.NewBody(ast.Equality.Expr(ast.NewTerm(result), ast.NewTerm(ref(name))))); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", name, err)
	}
	if p.constant(name) {
		a, err := p.evaluate(ctx, name, r, nil, nil)
		r.constant, r.failure = &a, err
	}
	return r, nil
}

// flag evaluates a rule that must be a constant; without it the answer is false.
func (p *program) flag(ctx context.Context, name string) (bool, error) {
	r, err := p.rule(ctx, name)
	if err != nil || r == nil {
		return false, err
	}
	if r.constant == nil {
		return false, policylang.Refuse("%s must not depend on anything", name)
	}
	return r.failure == nil, nil
}

// constant says whether a rule depends on nothing but the text.
func (p *program) constant(name string) bool {
	seen := map[*ast.Rule]bool{}
	todo := p.compiler.GetRulesWithPrefix(ref(name))
	for len(todo) > 0 {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[r] {
			continue
		}
		seen[r] = true
		if depends(r) {
			return false
		}
		for next := range p.compiler.Graph.Dependencies(r) {
			if rule, ok := next.(*ast.Rule); ok {
				todo = append(todo, rule)
			}
		}
	}
	return true
}

// depends says whether a rule by itself refers to the input, to notes, to rules
// by a computed name, or to a builtin whose answer may differ.
func depends(r *ast.Rule) bool {
	found := false
	ast.WalkRefs(r, func(x ast.Ref) bool {
		switch {
		case x.HasPrefix(ast.InputRootRef):
			found = true
		case x.HasPrefix(ast.DefaultRootRef):
			found = found || len(x) < 3 || !x[1].Equal(ast.StringTerm(packageName)) || !isString(x[2])
		default:
			b := ast.BuiltinMap[x.String()]
			found = found || b != nil && policylang.Varies(b)
		}
		return found
	})
	return found
}

func isString(t *ast.Term) bool {
	_, ok := t.Value.(ast.String)
	return ok
}

// readsBytes says whether a policy may look at the bytes in a request: it reads
// a member named data, or one by a computed name, or the input as a whole.
func readsBytes(c *ast.Compiler) bool {
	found := false
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			ast.WalkRefs(r, func(x ast.Ref) bool {
				if x.HasPrefix(ast.InputRootRef) {
					found = found || len(x) == 1 || !isString(x[1]) || x[1].Equal(ast.StringTerm("data"))
				}
				return found
			})
		}
	}
	return found
}
