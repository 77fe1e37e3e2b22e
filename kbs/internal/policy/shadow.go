package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// maxSamples is how many decisions a shadow's report shows, of each kind of
// flip.
const maxSamples = 10

// shadowed names the shadow that a decision is shown to.
type shadowed struct {
	id      string
	version int64
	sum     string
}

// shadowNotes are what a shadow said since the last write.
type shadowNotes struct {
	policy  string
	kind    Kind
	of      shadowed
	tally   api.Tally
	dropped int64
	samples []api.Flip
	since   time.Time
}

// notes returns the notes about a shadow.
func (b *batch) notes(kind Kind, s shadowed, now time.Time) *shadowNotes {
	key := shadowKey(kind, s.id, s.version)
	notes := b.shadows[key]
	if notes == nil {
		notes = &shadowNotes{policy: Ref(kind, s.id, s.version), kind: kind, of: s, since: now}
		b.shadows[key] = notes
	}
	return notes
}

// compare asks the shadow what was asked of the policy in force.
func (b *batch) compare(o observation, now time.Time) {
	s, notes := o.shadow, b.notes(o.q.Kind, *o.shadow, now)
	ctx, cancel := context.WithTimeout(context.Background(), policylang.Deadline)
	defer cancel()
	after := o.engine.verdict(ctx, o.q, s.id, s.version, s.sum)
	kind := flip(o.verdict, after)
	count(&notes.tally, kind)
	if kind == "" || samples(notes.samples, kind) >= maxSamples {
		return
	}
	if d, ok := decisionOf(o.q, o.policy, o.verdict, now); ok {
		notes.samples = append(notes.samples, api.Flip{Decision: d, Kind: kind, Before: o.verdict, After: after})
	}
}

// verdict is what a version says to a question.
func (e *Engine) verdict(ctx context.Context, q Question, id string, n int64, sum string) api.Verdict {
	p, err := e.judge(ctx, q.Kind, id, n, sum)
	if err != nil {
		return api.Verdict{Error: err.Error()}
	}
	x, err := e.current(ctx)
	if err != nil {
		return api.Verdict{Error: err.Error()}
	}
	return e.runner.verdict(ctx, p, q, e.lookups(x))
}

func (r *runner) verdict(ctx context.Context, p judge, q Question, l *lookups) api.Verdict {
	a, err := r.ask(ctx, p, q, l)
	return verdictOf(a, err)
}

func verdictOf(a answer, err error) api.Verdict {
	if err != nil {
		return api.Verdict{Error: err.Error()}
	}
	return api.Verdict{Allow: a.allow, Vector: a.vector}
}

// flip compares two verdicts; "" means that nothing changes.
func flip(before, after api.Verdict) string {
	switch {
	case after.Error != "" && before.Error == "":
		return api.FlipError
	case after.Allow && !before.Allow:
		return api.FlipAllowed
	case before.Allow && !after.Allow:
		return api.FlipDenied
	case after.Error == "" && !maps.Equal(before.Vector, after.Vector):
		return api.FlipChanged
	}
	return ""
}

func count(t *api.Tally, kind string) {
	switch kind {
	case api.FlipAllowed:
		t.NewlyAllowed++
	case api.FlipDenied:
		t.NewlyDenied++
	case api.FlipChanged:
		t.Changed++
	case api.FlipError:
		t.Errors++
	default:
		t.Unchanged++
	}
}

func samples(all []api.Flip, kind string) int {
	n := 0
	for _, f := range all {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// write adds the notes to the report, unless the shadow has gone meanwhile.
func (n *shadowNotes) write(tx store.Tx, key string) error {
	h, err := readHead(tx, n.kind, n.of.id)
	if err != nil || h.Shadow != n.of.version {
		return err
	}
	r, err := readJSON[api.ShadowReport](tx, key)
	if errors.Is(err, store.ErrNotFound) {
		r = api.ShadowReport{Policy: n.policy, Since: n.since}
	} else if err != nil {
		return err
	}
	r.Tally.Unchanged += n.tally.Unchanged
	r.Tally.NewlyAllowed += n.tally.NewlyAllowed
	r.Tally.NewlyDenied += n.tally.NewlyDenied
	r.Tally.Changed += n.tally.Changed
	r.Tally.Errors += n.tally.Errors
	r.Dropped += n.dropped
	for _, f := range n.samples {
		if samples(r.Samples, f.Kind) < maxSamples {
			r.Samples = append(r.Samples, f)
		}
	}
	return putJSON(tx, key, r)
}

// Shadow returns what the shadow of a policy would have done so far;
// store.ErrNotFound if it has none.
func (d *Documents) Shadow(ctx context.Context, kind Kind, id string) (api.ShadowReport, error) {
	var out api.ShadowReport
	err := d.st.View(ctx, func(tx store.Tx) error {
		h, err := readHead(tx, kind, id)
		if err != nil {
			return err
		}
		if h.Shadow == 0 {
			return fmt.Errorf("policy %s/%s has no version in the shadow: %w", kind, id, store.ErrNotFound)
		}
		out, err = readJSON[api.ShadowReport](tx, shadowKey(kind, id, h.Shadow))
		if errors.Is(err, store.ErrNotFound) {
			out, err = api.ShadowReport{Policy: Ref(kind, id, h.Shadow)}, nil
		}
		if out.Samples == nil {
			out.Samples = []api.Flip{}
		}
		return err
	})
	return out, err
}
