// Package policy judges what the host asks of the guest by the pod owner's
// policy: Rego in package agent_policy, the form of the field's agents
// (kata-agent 3.5), so that what their genpolicy writes runs here as it is.
//
// For every request the rule with the name of its message is asked, with the
// request as input (see [Document]) and what earlier answers noted as
// data.pstate. A rule says true, false, or {"allowed": bool, "ops": [...]}, where
// ops is a JSON Patch of the notes. A request without a rule is refused.
//
// The policy's author is the pod's owner, and init-data binds the text. The
// input is the host's, who is not trusted. So what is limited is how much a
// hostile request can make an honest policy cost: time, memory, size of the
// notes. A rule that depends on neither input nor notes is asked only once.
//
// No lock is held while a policy is evaluated. Program and notes are one
// immutable world; an answer with notes is entered only if the world is still
// the one that it was given for, else the question is asked again.
//
// # What is remembered
//
// Everything that a container reads and writes goes by the host's requests, each a
// few kilobytes, and evaluating Rego costs as much as moving them. So a world
// remembers to which of those it has said yes (ADR 50). That weakens nothing:
//
//   - What is remembered is part of the world that said it. Another policy, or a
//     note that is made, changed or taken back, is another world, which remembers
//     nothing yet. There is nothing to be told that it is out of date, and so
//     nothing that could be forgotten to be told.
//   - A question has all in it that the input document is made of, so two that a
//     policy could tell apart are two.
//   - Only yes without a note is remembered. A refusal is judged again each time,
//     and so is an answer that notes something, or an evaluation that failed.
//   - Nothing is remembered of a policy that could answer otherwise the next time:
//     one in whose text there is time, chance or the verification of a certificate,
//     whether or not it is in the rule that is asked.
//   - How much is remembered is bounded, for the host says the names.
//
// A request that was allowed goes on when another policy comes into force: as ever,
// it is judged when it comes, also one that then waits for output.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Config says how an engine treats what it refuses.
type Config struct {
	// UnsafeLearn lets every request pass that the policy refuses, but SetPolicy,
	// and logs what would have been refused.
	UnsafeLearn bool
	Logger      *slog.Logger // nil discards
}

// Engine judges by the policy in force. It is safe for concurrent use.
type Engine struct {
	log   *slog.Logger
	learn bool
	world atomic.Pointer[world]
}

// world is a policy with what it noted so far, and to what it has said yes with
// just those notes.
type world struct {
	program *program
	notes   map[string]any
	known   known
}

// New compiles a policy. The error is a *SyntaxError for what its author can mend.
func New(ctx context.Context, text string, cfg Config) (*Engine, error) {
	e := &Engine{log: cfg.Logger, learn: cfg.UnsafeLearn}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if err := e.Replace(ctx, text); err != nil {
		return nil, err
	}
	return e, nil
}

// Replace puts another policy into force, without notes. If it does not compile
// the old one stays. Whether a request may do this is for the old one to say.
func (e *Engine) Replace(ctx context.Context, text string) error {
	p, err := compile(ctx, text)
	if err != nil {
		return err
	}
	if e.learn || p.failOpen {
		e.log.Warn("the agent policy is only learned from: NOTHING that it refuses is refused",
			slog.Bool("insecure_learn_agent_policy", e.learn), slog.Bool("AllowRequestsFailingPolicy", p.failOpen))
	}
	e.world.Store(&world{program: p, notes: map[string]any{}})
	return nil
}

// A Denial is a request that the policy does not allow. Its text is for the pod's
// owner: it may show the policy's inside.
type Denial struct {
	Request string
	Why     string
}

// Error says which rule refused, and what it printed on the way.
func (d *Denial) Error() string {
	return d.Rule() + ": " + d.Why
}

// Rule names the rule that was asked.
func (d *Denial) Rule() string { return "data." + packageName + "." + d.Request }

// maxTries bounds how often a question is asked again because another answer
// came first.
const maxTries = 100

var errBusy = errors.New("too many requests change what the policy noted")

// Judge returns nil if the request may be carried out. Then done must be called
// with whether it was: if not, what the policy noted about it is taken back.
// Notes that are only removed are removed at that time, for what they stand for
// exists until then. Otherwise the error is a *fault.Fault: policy_denied with a
// *Denial as its cause, or policy_error.
func (e *Engine) Judge(ctx context.Context, m proto.Message) (done func(carriedOut bool), err error) {
	request := string(m.ProtoReflect().Descriptor().Name())
	for range maxTries {
		w := e.world.Load()
		a, err := w.ask(ctx, request, m)
		if err != nil {
			return e.refused(ctx, w, request, m, err)
		}
		if len(a.ops) == 0 {
			remember(ctx, w)
			return nothing, nil
		}
		notes, back, err := patch(w.notes, a.ops)
		if err != nil {
			return e.refused(ctx, w, request, m, fault.New(fault.PolicyError, fmt.Errorf("%s: ops: %w", request, err)))
		}
		if onlyRemoves(a.ops) {
			remember(ctx, w)
			return e.enter(w.program, true, a.ops), nil
		}
		noted := &world{program: w.program, notes: notes}
		if e.world.CompareAndSwap(w, noted) {
			remember(ctx, noted)
			return e.enter(w.program, false, back), nil
		}
	}
	return nil, fault.New(fault.PolicyError, errBusy)
}

// Consents says whether [Engine.Judge] would allow a request without evaluating
// anything, and without a note: then it need not be asked. It takes no longer than
// a look into a table. False says nothing about the request.
func (e *Engine) Consents(m proto.Message) bool {
	return e.world.Load().consents(string(m.ProtoReflect().Descriptor().Name()), m)
}

func nothing(bool) {}

// enter returns what changes the notes when a request has come to this end,
// unless another policy has come into force.
func (e *Engine) enter(p *program, end bool, changes []change) func(bool) {
	return func(carriedOut bool) {
		for w := e.world.Load(); carriedOut == end && w.program == p; w = e.world.Load() {
			if e.world.CompareAndSwap(w, &world{program: p, notes: repatch(w.notes, changes)}) {
				return
			}
		}
	}
}

// refused is the end of a request, unless the policy is only learned from.
func (e *Engine) refused(ctx context.Context, w *world, request string, m proto.Message, err error) (func(bool), error) {
	if !e.learning(w) || request == setPolicy {
		return nil, err
	}
	e.log.Warn(LearnMessage, slog.String("request", request), slog.String("why", cause(err)), slog.Any("input", logged(m)))
	remember(ctx, w)
	return nothing, nil
}

// LearnMessage marks the log lines that tell what a policy that is only learned
// from would have refused. Their attributes are "request", "why" and "input".
const LearnMessage = "the agent policy would refuse this"

// setPolicy is never allowed by learning: the host could end it for good.
const setPolicy = "SetPolicyRequest"

func (e *Engine) learning(w *world) bool { return e.learn || w.program.failOpen }

func cause(err error) string {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Cause() != nil {
		return f.Cause().Error()
	}
	return err.Error()
}

// CheckImage compares the image that was pulled for a reference with what the
// policy allows (see pins): the one by which the request was allowed, see [Hearing],
// and the one that is in force. The error is a *fault.Fault with policy_denied.
func (e *Engine) CheckImage(ctx context.Context, ref, digest string) error {
	now := e.world.Load()
	if w := e.allowedBy(ctx); w != now {
		if err := e.checkImage(w, ref, digest); err != nil {
			return err
		}
	}
	return e.checkImage(now, ref, digest)
}

func (e *Engine) checkImage(w *world, ref, digest string) error {
	err := w.program.pins.check(ref, digest)
	if err != nil && e.learning(w) {
		e.log.Warn(LearnMessage, slog.String("request", "image"), slog.String("why", err.Error()),
			slog.Any("input", map[string]string{"reference": ref, "digest": digest}))
		return nil
	}
	if err != nil {
		return fault.New(fault.PolicyDenied, err)
	}
	return nil
}
