package main

import "context"

// A pair is our two settings. What the one costs beside the other is mostly less
// than two pulls of one setting differ on a machine that others use too.
type pair struct{ full, small *result }

// ourPair finds them. A zero pair: they are not both there.
func ourPair(results []*result) (p pair) {
	for _, res := range results {
		switch res.tool.name() {
		case own(options{}, false).name():
			p.full = res
		case own(options{}, true).name():
			p.small = res
		}
	}
	if p.full == nil || p.small == nil {
		return pair{}
	}
	return p
}

// kept is what of the speed is left in the setting for small guests, by rounds.
func (p pair) kept() (all []float64) {
	if p.full == nil {
		return nil
	}
	for n := range min(len(p.full.rounds), len(p.small.rounds)) {
		all = append(all, p.full.rounds[n].wall.Seconds()/p.small.rounds[n].wall.Seconds())
	}
	return all
}

// morePairs is how many times the rounds of a run may follow it, of the pair alone.
const morePairs = 2

// settle measures our two settings again, in turn, as long as fewer than three in
// four rounds agree on whether the gate between them is held. It is the same for
// those that hold it and those that do not.
func (r *runner) settle(ctx context.Context) error {
	first := ourPair(r.results)
	if first.full == nil {
		return nil
	}
	r.more = pair{full: &result{tool: first.full.tool}, small: &result{tool: first.small.tool}}
	for n := range morePairs * r.rounds {
		if agreed(append(first.kept(), r.more.kept()...), gateSmall) {
			return nil
		}
		turns := []*result{r.more.small, r.more.full}
		for i := range turns {
			if err := r.round(ctx, turns[(i+n)%2]); err != nil {
				return err
			}
		}
	}
	return nil
}

// agreed reports whether three in four are on the same side of the gate.
func agreed(seen []float64, gate float64) bool {
	held := 0
	for _, s := range seen {
		if s >= gate {
			held++
		}
	}
	return 4*max(held, len(seen)-held) >= 3*len(seen)
}
