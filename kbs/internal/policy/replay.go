package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// maxFlips limits the flips of each kind that a report lists; its tally counts
// all.
const maxFlips = 100

// What a candidate is compared with.
const (
	baselineInForce  = "in force"
	baselineRecorded = "recorded"
)

// Replay asks a candidate, and beside it the policies in force now, about the
// recorded decisions that the candidate would make under this name. The
// candidate is a text, or a version that is kept.
func (e *Engine) Replay(ctx context.Context, kind Kind, id string, req api.ReplayRequest) (api.ReplayReport, error) {
	rep := api.ReplayReport{Policy: string(kind) + "/" + id, Baseline: baselineInForce, Flips: []api.Flip{}}
	if err := e.Settle(ctx); err != nil {
		return rep, err
	}
	candidate, err := e.candidate(ctx, kind, id, req)
	if err != nil {
		return rep, err
	}
	x, err := e.current(ctx)
	if err != nil {
		return rep, err
	}
	for after := ""; ; {
		all, err := e.docs.Decisions(ctx, req.Since, after, decisionPage)
		if err != nil {
			return rep, err
		}
		for _, d := range all {
			after = d.Kind + "/" + d.Digest
			if !x.wouldDecide(kind, id, d) {
				continue
			}
			if err := e.replay(ctx, x, candidate, d, &rep); err != nil {
				return rep, err
			}
		}
		if len(all) < decisionPage {
			return rep, nil
		}
	}
}

func (e *Engine) candidate(ctx context.Context, kind Kind, id string, req api.ReplayRequest) (judge, error) {
	switch {
	case (req.Rego == "") == (req.Target == 0):
		return judge{}, fmt.Errorf("%w: a replay needs a text or the number of a version, not both", ErrRequest)
	case req.Rego != "":
		p, err := compile(ctx, kind, req.Rego)
		return judge{p, string(kind) + "/" + id}, err
	}
	p, err := e.docs.Version(ctx, kind, id, req.Target)
	if err != nil {
		return judge{}, err
	}
	if p.Stage == api.StageDeleted {
		return judge{}, fmt.Errorf("%w: version %d is a deletion", ErrRequest, req.Target)
	}
	return e.judge(ctx, kind, id, p.Version, p.SHA256)
}

// wouldDecide reports whether a policy of this name would make a decision, if
// it were in force beside those that are.
func (x *index) wouldDecide(kind Kind, id string, d api.Decision) bool {
	if Kind(d.Kind) != kind {
		return false
	}
	if kind == Attestation {
		return d.ID == id
	}
	for _, name := range candidates(d.Plugin, d.Path) {
		if name == id {
			return true
		}
		if x.parts[indexName(kind, name)].enforce != 0 {
			return false
		}
	}
	return false
}

func (e *Engine) replay(ctx context.Context, x *index, candidate judge, d api.Decision, rep *api.ReplayReport) error {
	q, err := questionOf(d)
	if err != nil {
		return err
	}
	// One set of lookups serves both: they must see the same values.
	l := e.lookups(x)
	before := api.Verdict{}
	id, _ := x.names(q)
	p, err := e.enforced(ctx, x, q.Kind, id)
	switch {
	case err == nil:
		before = e.runner.verdict(ctx, p, q, l)
	case errors.Is(err, store.ErrNotFound): // nothing is in force: it refuses
	default:
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	add(rep, d, before, e.runner.verdict(ctx, candidate, q, l))
	return ctx.Err()
}

// Impact is what is known about a version that is about to be enforced: what
// it makes of the recorded decisions, and what it newly allowed as a shadow.
func (e *Engine) Impact(ctx context.Context, kind Kind, id string, target int64) (api.Tally, error) {
	rep, err := e.Replay(ctx, kind, id, api.ReplayRequest{Target: target})
	if err != nil {
		return rep.Tally, err
	}
	shadow, err := e.docs.Shadow(ctx, kind, id)
	if errors.Is(err, store.ErrNotFound) {
		return rep.Tally, nil
	}
	if shadow.Policy == Ref(kind, id, target) {
		rep.Tally.NewlyAllowed = max(rep.Tally.NewlyAllowed, shadow.Tally.NewlyAllowed)
	}
	return rep.Tally, err
}

// ReplayOffline compares a candidate with what was recorded, over an exported
// corpus and reference values that somebody brought. It needs no broker.
func (h *Host) ReplayOffline(ctx context.Context, kind Kind, id, text string, all []api.Decision, since time.Time, refs refvalue.Querier) (api.ReplayReport, error) {
	rep := api.ReplayReport{Policy: string(kind) + "/" + id, Baseline: baselineRecorded, Flips: []api.Flip{}}
	p, err := compile(ctx, kind, text)
	if err != nil {
		return rep, err
	}
	alone := &index{}
	for _, d := range all {
		if d.Last.Before(since) || !alone.wouldDecide(kind, id, d) {
			continue
		}
		q, err := questionOf(d)
		if err != nil {
			return rep, fmt.Errorf("decision %s: %w", d.Digest, err)
		}
		add(&rep, d, d.Verdict, h.runner.verdict(ctx, judge{p, rep.Policy}, q, newLookups(refs)))
		if err := ctx.Err(); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// add enters one comparison.
func add(rep *api.ReplayReport, d api.Decision, before, after api.Verdict) {
	kind := flip(before, after)
	count(&rep.Tally, kind)
	if kind != "" && samples(rep.Flips, kind) < maxFlips {
		rep.Flips = append(rep.Flips, api.Flip{Decision: d, Kind: kind, Before: before, After: after})
	}
}
