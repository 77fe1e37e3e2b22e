package policy

import (
	"context"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
)

// Trial is a text that is tried out, away from any broker.
type Trial struct {
	host *Host
	p    judge
}

// Try compiles a text under the broker's rules. Places in it are reported
// under the name of the file. The error is a *SyntaxError for anything that
// its author can mend.
func (h *Host) Try(ctx context.Context, kind Kind, file, text string) (*Trial, error) {
	p, err := compileFile(ctx, kind, file, text)
	if err != nil {
		return nil, err
	}
	return &Trial{h, judge{p, file}}, nil
}

// offline are reference values that somebody brought. None is near another.
type offline struct{ refvalue.Querier }

// Nearest knows nothing.
func (offline) Nearest(context.Context, string, string) (refvalue.Match, error) {
	return refvalue.Match{}, nil
}

// Ask evaluates a question, and says why the answer is no. The tracer sees the
// evaluation of the decision; it may be nil.
func (t *Trial) Ask(ctx context.Context, q Question, refs refvalue.Querier, tracer topdown.QueryTracer) (api.Verdict, Explanation) {
	var opts []rego.EvalOption
	if tracer != nil {
		opts = append(opts, rego.EvalQueryTracer(tracer))
	}
	a, err := t.host.runner.ask(ctx, t.p, q, newLookups(refs), opts...)
	v := verdictOf(a, err)
	if err != nil || v.Allow {
		return v, Explanation{}
	}
	x, err := t.host.runner.explain(ctx, t.p, q, newLookups(refs), offline{refs})
	if err != nil {
		v.Error = err.Error()
	}
	return v, x
}

// Appraise evaluates an attestation policy over the claims of kbs-protocol 9.2,
// and says why they are not affirmed.
func (t *Trial) Appraise(ctx context.Context, in Input, refs refvalue.Querier) (Appraisal, Explanation, error) {
	q := Question{Kind: Attestation, Input: in}
	a, err := t.host.runner.ask(ctx, t.p, q, newLookups(refs))
	if err != nil {
		return Appraisal{}, Explanation{}, err
	}
	out := Appraisal{Policy: t.p.ref, Vector: a.vector, Extensions: a.extensions}
	if a.allow {
		return out, Explanation{}, nil
	}
	why, err := t.host.runner.explain(ctx, t.p, q, newLookups(refs), offline{refs})
	return out, why, err
}
