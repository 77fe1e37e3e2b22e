package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// answer is a rule's consent, with what it notes.
type answer struct{ ops []change }

// ask puts a request to its rule, unless the world has said yes to the same
// before. The error is a *fault.Fault.
func (w *world) ask(ctx context.Context, request string, m proto.Message) (answer, error) {
	r := w.program.rules[request]
	switch {
	case r == nil:
		return answer{}, fault.New(fault.PolicyDenied, &Denial{request, "the policy has no such rule"})
	case r.constant != nil:
		return *r.constant, r.failure
	}
	q, again := w.question(m)
	if again && w.known.has(q) {
		return answer{}, nil
	}
	input, err := document(m, w.program.bytes)
	if err != nil {
		return answer{}, fault.New(fault.PolicyError, fmt.Errorf("%s: %w", request, err))
	}
	a, err := w.program.evaluate(ctx, request, r, input, w.notes)
	if again && err == nil && len(a.ops) == 0 {
		w.known.add(q)
	}
	return a, err
}

// consents says whether the answer is yes and needs no evaluation.
func (w *world) consents(request string, m proto.Message) bool {
	r := w.program.rules[request]
	switch {
	case r == nil:
		return false
	case r.constant != nil:
		return r.failure == nil && len(r.constant.ops) == 0
	}
	q, again := w.question(m)
	return again && w.known.has(q)
}

// question returns what a request asks, if its answer may be remembered.
func (w *world) question(m proto.Message) (question, bool) {
	if !w.program.steady {
		return question{}, false
	}
	return questionOf(m, w.program.bytes)
}

// evaluate asks a rule within the limits. The error is a *fault.Fault.
func (p *program) evaluate(ctx context.Context, name string, r *rule, input ast.Value, notes map[string]any) (answer, error) {
	value, printed, err := p.value(ctx, r, input, notes)
	if err != nil {
		return answer{}, fault.New(fault.PolicyError, fmt.Errorf("%s: %w", name, err))
	}
	why := func(what string) string {
		if printed == "" {
			return what
		}
		return what + "; it printed, the last first: " + printed
	}
	allowed, ops := value, any(nil)
	if m, ok := value.(map[string]any); ok {
		allowed, ops = m["allowed"], m["ops"]
	}
	switch allowed {
	case true:
	case false:
		return answer{}, fault.New(fault.PolicyDenied, &Denial{name, why("it says false")})
	case nil:
		return answer{}, fault.New(fault.PolicyDenied, &Denial{name, why("it says nothing")})
	default:
		return answer{}, fault.New(fault.PolicyError, fmt.Errorf("%s: %s", name, why("it says neither true nor false")))
	}
	if ops == nil {
		return answer{}, nil
	}
	list, err := parseOps(ops)
	if err != nil {
		return answer{}, fault.New(fault.PolicyError, fmt.Errorf("%s: ops: %w", name, err))
	}
	return answer{list}, nil
}

// value evaluates a rule; nil is an undefined one.
func (p *program) value(ctx context.Context, r *rule, input ast.Value, notes map[string]any) (any, string, error) {
	if p.stuck.Load() {
		return nil, "", policylang.ErrStuck
	}
	type outcome struct {
		value   any
		printed string
	}
	out, err := policylang.Run(ctx, p.runner, func(ctx context.Context, cancel topdown.Cancel) (outcome, error) {
		var lines printed
		q := topdown.NewQuery(r.query).WithCompiler(p.compiler).WithQueryCompiler(r.compiler).
			WithStore(notebook{}).WithTransaction(&transaction{notes}).WithCancel(cancel).WithPrintHook(&lines)
		if input != nil {
			q = q.WithInput(ast.NewTerm(input))
		}
		var value any
		err := q.Iter(ctx, func(found topdown.QueryResult) (err error) {
			value, err = ast.JSON(found[result].Value)
			return err
		})
		return outcome{value, lines.String()}, err
	})
	if errors.Is(err, policylang.ErrStuck) {
		p.stuck.Store(true)
	}
	return out.value, out.printed, err
}

// printed keeps the end of what a policy prints: its last words say where it
// stopped.
type printed struct{ lines []string }

const (
	maxPrinted = 24      // lines
	maxLine    = 1 << 10 // bytes
)

// Print takes a line.
func (p *printed) Print(_ print.Context, line string) error {
	if len(p.lines) == maxPrinted {
		p.lines = p.lines[1:]
	}
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "..."
	}
	p.lines = append(p.lines, line)
	return nil
}

// String joins the lines, the last first.
func (p *printed) String() string {
	slices.Reverse(p.lines)
	return strings.Join(p.lines, "; ")
}
