package pull

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
)

// A job is the layers of one pull.
type job struct {
	puller   *Puller
	src      registry.Source
	progress *progress
	received atomic.Int64 // bytes of layers
}

// layers makes all layers available, several at a time. On an error it gives
// back and removes what it had made.
func (j *job) layers(ctx context.Context, plans []layerPlan) ([]*store.Layer, error) {
	j.puller.enter()
	defer j.puller.leave()
	got := make([]*store.Layer, len(plans))
	first := map[[2]digest.Digest]int{} // by blob and diffID
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(j.puller.cfg.Parallel)
	for _, i := range largestFirst(plans) {
		lp := plans[i]
		id := [2]digest.Digest{lp.desc.Digest, lp.diffID}
		if _, twice := first[id]; twice {
			continue
		}
		first[id] = i
		group.Go(func() (err error) {
			if got[i], err = j.ensure(gctx, lp); err != nil {
				j.progress.layer(lp, Event{Phase: PhaseFailed, Err: err})
			}
			return err
		})
	}
	err := group.Wait()
	if err == nil {
		for i, lp := range plans { // the same layer twice shares one reference
			got[i] = got[first[[2]digest.Digest{lp.desc.Digest, lp.diffID}]]
		}
		return got, nil
	}
	for _, l := range got {
		switch {
		case l == nil:
		case j.puller.cfg.Keep:
			l.Release()
		default:
			err = errors.Join(err, l.Discard())
		}
	}
	return nil, err
}

// largestFirst orders the layers by size: a large one that starts last would end
// alone, on a core or two of many.
func largestFirst(plans []layerPlan) []int {
	order := make([]int, len(plans))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(plans[b].desc.Size, plans[a].desc.Size) })
	return order
}
