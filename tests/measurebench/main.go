// Command measurebench says what verifying evidence costs beside the signatures
// that cannot be left out, and what predicting costs beside the hashing. It
// fails if either is more than a part above.
//
//	measurebench [--rounds N] [--budget D] [--only PLATFORM]
//
// Both sides take turns in one run, each for the same time, and what is
// compared is CPU time of this process: a busy machine disturbs both alike.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
)

// The gates: how much dearer than what it cannot avoid a thing may be.
const (
	gateVerify  = 1.3
	gatePredict = 1.3
)

var errGate = errors.New("below the gate")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "measurebench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	rounds int
	budget time.Duration // of one side in one round
	only   string
	// profile is a file to write a CPU profile of the rounds to.
	profile string
}

// A comparison is a thing and what it cannot avoid.
type comparison struct {
	name, bare  string
	gate        float64
	thing, base func() error
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	flags := pflag.NewFlagSet("measurebench", pflag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 15, "rounds, of which the median counts")
	flags.DurationVar(&o.budget, "budget", 60*time.Millisecond, "CPU time of each side in a round")
	flags.StringVar(&o.only, "only", "", "one `NAME` of the table alone")
	flags.StringVar(&o.profile, "profile", "", "write a CPU profile of what is compared to this `FILE`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "measurebench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var all []comparison
	for _, make := range []func(context.Context, string, string) ([]comparison, error){verifications, predictions} {
		some, err := make(ctx, dir, o.only)
		if err != nil {
			return err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return fmt.Errorf("nothing is named %q", o.only)
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, f.Close())
		}()
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CPU time, median of %d rounds\teach\tit cannot avoid\teach\tratio\tgate\n", o.rounds)
	failed := false
	for _, c := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := c.measure(o)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		verdict := "ok"
		if r.ratio > c.gate {
			verdict, failed = "MISSED", true
		}
		fmt.Fprintf(t, "%s\t%v\t%s\t%v\t%.2f\t%.1f %s\n", c.name, r.thing, c.bare, r.base, r.ratio, c.gate, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if failed {
		return errGate
	}
	return nil
}

// result is what each side costs, and the ratio of the rounds' median.
type result struct {
	thing, base time.Duration
	ratio       float64
}

func (c comparison) measure(o options) (result, error) {
	var things, bases []time.Duration
	var ratios []float64
	for round := -1; round < o.rounds; round++ { // the first time of anything is dear
		thing, err := cost(o.budget, c.thing)
		if err != nil {
			return result{}, err
		}
		base, err := cost(o.budget, c.base)
		if err != nil {
			return result{}, err
		}
		if round >= 0 {
			things, bases = append(things, thing), append(bases, base)
			ratios = append(ratios, float64(thing)/float64(max(base, 1)))
		}
	}
	return result{thing: median(things), base: median(bases), ratio: median(ratios)}, nil
}

// cost is the CPU time of one call, of as many as use up the budget. The clock
// is looked at after 1, 2, 4, ... calls, for a look is dear.
func cost(budget time.Duration, f func() error) (time.Duration, error) {
	before := cpuTime()
	for n, batch := 0, 1; ; batch *= 2 {
		for range batch {
			if err := f(); err != nil {
				return 0, err
			}
		}
		n += batch
		if spent := cpuTime() - before; spent >= budget {
			return spent / time.Duration(n), nil
		}
	}
}

// cpuTime is that of this process, user and system, the collector's included.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it takes no input
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median[T time.Duration | float64](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}
