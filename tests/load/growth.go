package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// gateGrowth is how much more a request may cost with everything there than
// with next to nothing.
const gateGrowth = 1.15

// growth fills the broker in steps and shows the cost of a request at each.
func growth(ctx context.Context, s *stage, out io.Writer) error {
	guests, err := s.attested(ctx, 16)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "resources  reference values  policies  attestation us  release us")
	var first, last [2]time.Duration
	have := filling{}
	for part := 0; part <= 3; part++ {
		want := filling{}
		if part > 0 {
			scale := []int{0, 100, 10, 1}[part]
			want = filling{s.opts.most / scale, s.opts.most / 10 / scale, s.opts.most / 100 / scale}
		}
		if err := s.fill(ctx, have, want); err != nil {
			return err
		}
		have = want
		var as, rs []outcome
		for range s.opts.rounds {
			a, err := s.drive(ctx, attestations/2, 16, s.attestation)
			if err != nil {
				return err
			}
			r, err := s.drive(ctx, releases/2, 16, fetch(guests))
			if err != nil {
				return err
			}
			as, rs = append(as, a), append(rs, r)
		}
		last = [2]time.Duration{median(as, outcome.cost), median(rs, outcome.cost)}
		if part == 0 {
			first = last
		}
		fmt.Fprintf(out, "%9d  %16d  %8d  %14d  %10d\n", have.resources, have.values, have.policies, last[0].Microseconds(), last[1].Microseconds())
	}
	var errs []error
	for i, what := range []string{"an attestation", "a release"} {
		if more := last[i].Seconds() / first[i].Seconds(); more > gateGrowth {
			errs = append(errs, fmt.Errorf("%s costs %.2f times as much, the gate is %.2f", what, more, gateGrowth))
		}
	}
	return errors.Join(errs...)
}

// filling is what a broker holds beside what the guests need.
type filling struct{ resources, values, policies int }

func (s *stage) fill(ctx context.Context, have, want filling) error {
	value, err := json.Marshal([]string{"0123456789abcdef"})
	if err != nil {
		return err
	}
	return errors.Join(
		each(ctx, have.resources, want.resources, func(i int) error {
			_, err := s.admin.PutResource(ctx, fmt.Sprintf("filling/key/%d", i), secret.Random(32))
			return err
		}),
		each(ctx, have.values, want.values, func(i int) error {
			_, err := s.admin.PutRefValue(ctx, api.RefValue{Name: fmt.Sprintf("filling/%d", i), Value: value, Version: -1})
			return err
		}),
		each(ctx, have.policies, want.policies, func(i int) error {
			_, err := s.admin.PutPolicy(ctx, api.Policy{Kind: "resource", ID: fmt.Sprintf("filling-%d", i), Rego: resourcePolicy, Version: -1})
			return err
		}),
	)
}

// each does what is to be done for the numbers from a to b, many at a time.
func each(ctx context.Context, from, to int, do func(int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := atomic.Int64{}
	next.Store(int64(from))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
