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
	parallel     = 64 // guests at a time
)

// bench interleaves rounds of everything, so that a machine that slows down
// slows all of it.
func bench(ctx context.Context, s *stage, out io.Writer) (err error) {
	guests, err := s.attested(ctx, 256)
	if err != nil {
		return err
	}
	if _, err := s.drive(ctx, attestations/4, 8, s.attestation); err != nil { // warm
		return err
	}
	b, err := startBare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if _, err := b.measure(ctx, parallel); err != nil { // warm
		return err
	}
	var ceilings, crowded []ceiling
	var attest, release []outcome
	for range s.opts.rounds {
		c, err := b.measure(ctx, 1)
		if err != nil {
			return err
		}
		d, err := b.measure(ctx, parallel)
		if err != nil {
			return err
		}
		a, err := s.drive(ctx, attestations, parallel, s.attestation)
		if err != nil {
			return err
		}
		r, err := s.drive(ctx, releases, parallel, fetch(guests))
		if err != nil {
			return err
		}
		ceilings, crowded = append(ceilings, c), append(crowded, d)
		attest, release = append(attest, a), append(release, r)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CPU time of the server, median of %d rounds\tper request\tper CPU-second\tof ceiling\tgate\n", s.opts.rounds)
	row := func(name, bare string, rounds []outcome, of func(ceiling) time.Duration, gate float64) bool {
		least, most, cost := median(ceilings, of), median(crowded, of), median(rounds, outcome.cost)
		part := least.Seconds() / cost.Seconds()
		fmt.Fprintf(t, "ceiling: %s\t%v\t%.0f\t\t\n", bare, micro(least), rate(least))
		fmt.Fprintf(t, "the same for %d clients at once\t%v\t%.0f\t\t\n", parallel, micro(most), rate(most))
		fmt.Fprintf(t, "%s, %d guests at once\t%v\t%.0f\t%.0f %%\t%s\n", name, parallel, micro(cost), rate(cost), 100*part, verdict(part >= gate, fmt.Sprintf("%.0f %%", 100*gate)))
		return part >= gate
	}
	ok := row("attestation, new connection", "TLS handshake, P-384 verify, ES256 sign, ECDH", attest,
		func(c ceiling) time.Duration { return c.Attestation }, gateAttestation)
	ok = row("release, open connection", "HTTPS exchange, ECDH, AES-GCM", release,
		func(c ceiling) time.Duration { return c.Release }, gateRelease) && ok
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
	for _, at := range []int{1, 64, 256} {
		r, err := s.drive(ctx, releases/2, at, fetch(guests))
		if err != nil {
			return false, err
		}
		gate := ""
		if at == 64 {
			ok = r.percentile(99) < gateLatency
			gate = verdict(ok, gateLatency.String())
		}
		latencyRow(t, "release", at, r, gate)
	}
	for _, at := range []int{1, 64, 256} {
		n := attestations
		if at == 1 {
			n /= 4
		}
		a, err := s.drive(ctx, n, at, s.attestation)
		if err != nil {
			return false, err
		}
		latencyRow(t, "attestation", at, a, "")
	}
	return ok, t.Flush()
}

func latencyRow(w io.Writer, name string, guests int, o outcome, gate string) {
	ms := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%.0f\t%d\t%s\n", name, guests, ms(o.percentile(50)), ms(o.percentile(99)), float64(o.done)/o.wall.Seconds(), o.refused, gate)
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

func median[T any](rounds []T, of func(T) time.Duration) time.Duration {
	var all []time.Duration
	for _, r := range rounds {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func micro(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
func rate(d time.Duration) float64        { return 1 / d.Seconds() }

func verdict(ok bool, gate string) string {
	if ok {
		return gate + " ok"
	}
	return gate + " MISSED"
}
