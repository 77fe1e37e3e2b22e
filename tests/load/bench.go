package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
)

// The gates: what part of the ceiling must be reached, and how long a release
// may take.
const (
	gateAttestation = 0.70
	gateRelease     = 0.65
	gateLatency     = 50 * time.Millisecond // p99 of releases, 64 guests at a time
)

const (
	attestations = 2_000 // a round
	releases     = 8_000
)

// bench interleaves rounds of everything, so that a machine that slows down
// slows all of it.
func bench(ctx context.Context, s *stage, out io.Writer) error {
	guests, err := s.attested(ctx, 256)
	if err != nil {
		return err
	}
	if _, err := s.drive(ctx, attestations/4, 8, s.attestation); err != nil { // warm
		return err
	}
	var ceilings []ceiling
	var attest, release []outcome
	for range s.opts.rounds {
		c, err := measureCeiling(ctx)
		if err != nil {
			return err
		}
		a, err := s.drive(ctx, attestations, 16, s.attestation)
		if err != nil {
			return err
		}
		r, err := s.drive(ctx, releases, 16, fetch(guests))
		if err != nil {
			return err
		}
		ceilings, attest, release = append(ceilings, c), append(attest, a), append(release, r)
	}
	c := medianCeiling(ceilings)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CPU time of the broker, median of %d rounds\tper request\tper CPU-second\tof ceiling\tgate\n", s.opts.rounds)
	fmt.Fprintf(t, "ceiling of an attestation: TLS %v, P-384 verify %v, ES256 sign %v, ECDH %v\t%v\t%.0f\t\t\n",
		micro(c.Handshake), micro(c.Verify), micro(c.Sign), micro(c.Agree), micro(c.attestation()), rate(c.attestation()))
	row := func(name string, rounds []outcome, ceiling time.Duration, gate float64) bool {
		cost := median(rounds, outcome.cost)
		part := ceiling.Seconds() / cost.Seconds()
		fmt.Fprintf(t, "%s\t%v\t%.0f\t%.0f %%\t%s\n", name, micro(cost), rate(cost), 100*part, verdict(part >= gate, fmt.Sprintf("%.0f %%", 100*gate)))
		return part >= gate
	}
	ok := row("attestation, new connection", attest, c.attestation(), gateAttestation)
	fmt.Fprintf(t, "ceiling of a release: HTTPS exchange %v, ECDH %v, seal %v\t%v\t%.0f\t\t\n",
		micro(c.Exchange), micro(c.Agree), micro(c.Seal), micro(c.release()), rate(c.release()))
	ok = row("release, open connection", release, c.release(), gateRelease) && ok
	if err := t.Flush(); err != nil {
		return err
	}
	fast, err := s.latencies(ctx, guests, out)
	if err == nil && !(ok && fast) {
		err = errors.New("below a gate")
	}
	return err
}

// latencies shows that many guests at once wait their turn, and none for long.
func (s *stage) latencies(ctx context.Context, guests []*client.Client, out io.Writer) (bool, error) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nlatency\tguests\tp50\tp99\tper second\tshed\tgate\n")
	ok := true
	for _, parallel := range []int{1, 64, 256} {
		r, err := s.drive(ctx, releases/2, parallel, fetch(guests))
		if err != nil {
			return false, err
		}
		gate := ""
		if parallel == 64 {
			ok = r.percentile(99) < gateLatency
			gate = verdict(ok, gateLatency.String())
		}
		latencyRow(t, "release", parallel, r, gate)
	}
	for _, parallel := range []int{1, 64, 256} {
		n := attestations
		if parallel == 1 {
			n /= 4
		}
		a, err := s.drive(ctx, n, parallel, s.attestation)
		if err != nil {
			return false, err
		}
		latencyRow(t, "attestation", parallel, a, "")
	}
	return ok, t.Flush()
}

func latencyRow(w io.Writer, name string, parallel int, o outcome, gate string) {
	ms := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%.0f\t%d\t%s\n", name, parallel, ms(o.percentile(50)), ms(o.percentile(99)), float64(o.done)/o.wall.Seconds(), o.refused, gate)
}

func (s *stage) attestation(ctx context.Context, _, i int) error { return busy(s.attest(ctx, i)) }

// fetch has each worker fetch with a guest of its own.
func fetch(guests []*client.Client) func(context.Context, int, int) error {
	return func(ctx context.Context, worker, _ int) error {
		value, err := guests[worker].Resource(ctx, "kbs:///"+releasedResource)
		value.Destroy()
		return busy(err)
	}
}

func busy(err error) error {
	if code := fault.CodeOf(err); err != nil && (code == fault.TooMany || code == fault.Unavailable) {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return err
}

func median(rounds []outcome, of func(outcome) time.Duration) time.Duration {
	var all []time.Duration
	for _, r := range rounds {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func medianCeiling(all []ceiling) ceiling {
	of := func(member func(ceiling) time.Duration) time.Duration {
		var ds []time.Duration
		for _, c := range all {
			ds = append(ds, member(c))
		}
		slices.Sort(ds)
		return ds[len(ds)/2]
	}
	return ceiling{
		Handshake: of(func(c ceiling) time.Duration { return c.Handshake }),
		Exchange:  of(func(c ceiling) time.Duration { return c.Exchange }),
		Verify:    of(func(c ceiling) time.Duration { return c.Verify }),
		Sign:      of(func(c ceiling) time.Duration { return c.Sign }),
		Agree:     of(func(c ceiling) time.Duration { return c.Agree }),
		Seal:      of(func(c ceiling) time.Duration { return c.Seal }),
	}
}

func micro(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
func rate(d time.Duration) float64        { return 1 / d.Seconds() }

func verdict(ok bool, gate string) string {
	if ok {
		return gate + " ok"
	}
	return gate + " MISSED"
}
