package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// OPA's compiler and its type checker take time that is quadratic in how deep
// an expression is, and exponential in how often values hold other values
// twice: x1 := [x0, x0], x2 := [x1, x1], ... A policy beyond these limits is
// refused before the compiler sees it. Both are far above what people write.
const (
	maxNesting = 200     // levels of an expression, a body or a chain of else
	maxSpread  = 1 << 20 // scalars that a value has, written out
)

// complexity measures a parsed module.
type complexity struct {
	rules map[ast.Var][]*ast.Rule
	sizes map[ast.Var]float64 // of rules; 1 while it is being computed
	// locals are the sizes of a rule's own variables.
	locals map[ast.Var]float64
	err    error
}

// checkComplexity returns a *SyntaxError for a module beyond the limits.
func checkComplexity(m *ast.Module) error {
	c := &complexity{rules: map[ast.Var][]*ast.Rule{}, sizes: map[ast.Var]float64{}}
	for _, r := range m.Rules {
		name := r.Head.Name
		if len(r.Head.Reference) > 0 {
			name, _ = r.Head.Reference[0].Value.(ast.Var)
		}
		c.rules[name] = append(c.rules[name], r)
	}
	for name := range c.rules {
		if c.rule(name); c.err != nil {
			return c.err
		}
	}
	return nil
}

func (c *complexity) refuse(at *ast.Location, what string) {
	if c.err != nil {
		return
	}
	c.err = policylang.Refuse("%s", what)
	if at != nil {
		c.err = policylang.Refuse("%d:%d: %s", at.Row, at.Col, what)
	}
}

// rule returns the size of the values that the rules of a name yield.
func (c *complexity) rule(name ast.Var) float64 {
	if size, known := c.sizes[name]; known {
		return size
	}
	c.sizes[name] = 1
	outer := c.locals
	total := 0.0
	for _, r := range c.rules[name] {
		c.locals = map[ast.Var]float64{}
		depth := 0
		for ; r != nil && c.err == nil; r = r.Else {
			if depth++; depth > maxNesting {
				c.refuse(r.Location, "too many else")
			}
			c.body(r.Body, 0)
			for _, t := range r.Head.Reference {
				c.term(t, 0)
			}
			total += c.term(r.Head.Key, 0) + c.term(r.Head.Value, 0)
		}
	}
	c.locals = outer
	c.sizes[name] = total
	return total
}

func (c *complexity) body(b ast.Body, depth int) {
	for _, e := range b {
		c.expr(e, depth+1)
	}
}

func (c *complexity) expr(e *ast.Expr, depth int) {
	for _, w := range e.With {
		c.term(w.Target, depth+1)
		c.term(w.Value, depth+1)
	}
	switch t := e.Terms.(type) {
	case *ast.Term:
		c.term(t, depth+1)
	case []*ast.Term:
		var last float64
		for _, operand := range t {
			last = c.term(operand, depth+1)
		}
		if v, ok := assigned(e, t); ok {
			c.locals[v] += last
		}
	case *ast.SomeDecl:
		for _, s := range t.Symbols {
			c.term(s, depth+1)
		}
	case *ast.Every:
		c.term(t.Domain, depth+1)
		c.body(t.Body, depth+1)
	}
}

// assigned returns the variable that v := term or v = term gives a value.
func assigned(e *ast.Expr, terms []*ast.Term) (ast.Var, bool) {
	if len(terms) != 3 || (!e.IsAssignment() && !e.IsEquality()) {
		return "", false
	}
	v, ok := terms[1].Value.(ast.Var)
	return v, ok
}

// term returns the number of scalars of a value, as far as the text tells.
func (c *complexity) term(t *ast.Term, depth int) float64 {
	if t == nil || c.err != nil {
		return 0
	}
	if depth > maxNesting {
		c.refuse(t.Location, "nested too deeply")
		return 0
	}
	size := c.value(t, depth+1)
	if size > maxSpread {
		c.refuse(t.Location, "the value holds others too many times over")
	}
	return size
}

func (c *complexity) value(t *ast.Term, depth int) float64 {
	size := 1.0
	add := func(t *ast.Term) { size += c.term(t, depth) }
	switch v := t.Value.(type) {
	case ast.Var:
		return c.variable(v)
	case ast.Ref:
		return c.ref(v, depth)
	case ast.Call:
		for _, operand := range v {
			c.term(operand, depth)
		}
	case *ast.Array:
		v.Foreach(add)
	case ast.Set:
		v.Foreach(add)
	case ast.Object:
		v.Foreach(func(key, value *ast.Term) { add(key); add(value) })
	case *ast.ArrayComprehension:
		c.body(v.Body, depth)
		add(v.Term)
	case *ast.SetComprehension:
		c.body(v.Body, depth)
		add(v.Term)
	case *ast.ObjectComprehension:
		c.body(v.Body, depth)
		add(v.Key)
		add(v.Value)
	case *ast.TemplateString:
		c.parts(v, depth)
	}
	return size
}

func (c *complexity) parts(s *ast.TemplateString, depth int) {
	for _, p := range s.Parts {
		switch p := p.(type) {
		case *ast.Term:
			c.term(p, depth)
		case *ast.Expr:
			c.expr(p, depth)
		}
	}
}

func (c *complexity) variable(v ast.Var) float64 {
	if size, ok := c.locals[v]; ok {
		return size
	}
	if _, ok := c.rules[v]; ok {
		return c.rule(v)
	}
	return 1
}

// ref counts what a reference starts from, which is at least what it yields.
func (c *complexity) ref(r ast.Ref, depth int) float64 {
	for _, t := range r[1:] {
		c.term(t, depth)
	}
	head, ok := r[0].Value.(ast.Var)
	if !ok {
		return c.term(r[0], depth)
	}
	if name, ok := ownRule(r); ok {
		head = name
	}
	return c.variable(head)
}

var packageRef = ast.MustParseRef(packagePath)

// ownRule reads data.policy.name.
func ownRule(r ast.Ref) (ast.Var, bool) {
	if len(r) < 3 || !r[:2].Equal(packageRef) {
		return "", false
	}
	name, ok := r[2].Value.(ast.String)
	return ast.Var(name), ok
}
