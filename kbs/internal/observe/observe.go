// Package observe is how the rooms of the broker tell what they are doing
// without knowing who listens: metrics, traces, or nobody.
//
// The server opens a [Request] for each HTTP request and puts it into the
// context. A room that takes a step worth timing wraps it in [Step]. Without a
// request in the context, as in most tests, that costs a look at the context
// and nothing else.
package observe

import (
	"context"
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// The steps. They are labels of metrics and names of spans, so this list is
// all that there are.
const (
	StepDecode    = "decode"    // the answer to a challenge is read
	StepEvidence  = "evidence"  // hardware evidence is verified
	StepAppraise  = "appraise"  // the attestation policy judges
	StepIssue     = "issue"     // a token is signed
	StepRecord    = "record"    // the outcome becomes durable
	StepToken     = "token"     // a guest's token is verified
	StepAuthorize = "authorize" // the resource policy decides
	StepFetch     = "fetch"     // a resource is read and opened
	StepSeal      = "seal"      // a resource is encrypted to the guest
)

// Steps lists them all.
func Steps() []string {
	return []string{StepDecode, StepEvidence, StepAppraise, StepIssue, StepRecord, StepToken, StepAuthorize, StepFetch, StepSeal}
}

// Request is one HTTP request and, in the end, what became of it. Everything
// in it but HTTP and Ticket is safe as a label: none of it is a caller's text.
type Request struct {
	HTTP      *http.Request // as it came
	Listener  string        // "guests", "admins", "metrics" or the section of a service
	Operation string        // id of the route; "" if it was refused before any
	Route     string        // pattern of the route
	Platform  string        // canonical name, once it is known
	Start     time.Time
	Duration  time.Duration
	Status    int
	Received  int64 // bytes of the body
	Sent      int64 // bytes of the body
	Code      fault.Code
	Ticket    fault.Ticket
	TraceID   string // "" if it is not traced

	watcher Watcher
}

// Watcher learns of requests and their steps. All calls for one request come
// from one goroutine, one after the other.
type Watcher interface {
	// Begin returns the context of the handler.
	Begin(ctx context.Context, r *Request) context.Context
	// Step returns the context of the step, and what to call at its end.
	Step(ctx context.Context, r *Request, name string) (context.Context, func(err error))
	End(ctx context.Context, r *Request)
}

type key struct{}

// Begin opens a request for a watcher, which may be nil.
func Begin(ctx context.Context, w Watcher, r *Request) context.Context {
	r.watcher = w
	ctx = context.WithValue(ctx, key{}, r)
	if w == nil {
		return ctx
	}
	return w.Begin(ctx, r)
}

// End closes it.
func End(ctx context.Context, r *Request) {
	if r.watcher != nil {
		r.watcher.End(ctx, r)
	}
}

// From returns the request of a context, or nil.
func From(ctx context.Context) *Request {
	r, _ := ctx.Value(key{}).(*Request)
	return r
}

// Platform notes the platform of a request. The name must be one of the
// canonical ones: it becomes a label.
func Platform(ctx context.Context, name string) {
	if r := From(ctx); r != nil {
		r.Platform = name
	}
}

// Operation notes the route that a request came to.
func Operation(ctx context.Context, id string) {
	if r := From(ctx); r != nil {
		r.Operation = id
	}
}

// Step begins a step; the function that it returns ends it, with the error
// that it came to.
func Step(ctx context.Context, name string) (context.Context, func(err error)) {
	r := From(ctx)
	if r == nil || r.watcher == nil {
		return ctx, func(error) {}
	}
	return r.watcher.Step(ctx, r, name)
}

// Verdict is the outcome of a step in a word: "ok", or the code of a refusal.
func Verdict(err error) string {
	if err == nil {
		return "ok"
	}
	return string(fault.CodeOf(err))
}

// Both joins two watchers; either may be nil.
func Both(a, b Watcher) Watcher {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return both{a, b}
}

type both struct{ a, b Watcher }

func (w both) Begin(ctx context.Context, r *Request) context.Context {
	return w.b.Begin(w.a.Begin(ctx, r), r)
}

func (w both) Step(ctx context.Context, r *Request, name string) (context.Context, func(error)) {
	ctx, endA := w.a.Step(ctx, r, name)
	ctx, endB := w.b.Step(ctx, r, name)
	return ctx, func(err error) { endB(err); endA(err) }
}

func (w both) End(ctx context.Context, r *Request) {
	w.b.End(ctx, r)
	w.a.End(ctx, r)
}
