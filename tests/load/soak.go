package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// The soak's gates: resident memory at any time, and how much more of threads
// and files there may be at the end than after the first part.
const (
	gateResident = 64 << 20
	gateHandles  = 8
	parts        = 10
)

// soak runs the handshakes in parts and looks at the process after each.
func soak(ctx context.Context, s *stage, out io.Writer) error {
	pid := s.world.Broker.PID()
	fmt.Fprintln(out, "handshakes  per second  CPU us each  resident MB  peak MB  threads  files")
	var first, last handles
	var peak int64
	each := max(s.opts.handshakes/parts, 1)
	for part := range parts {
		o, err := s.drive(ctx, each, 32, func(ctx context.Context, _, i int) error { return s.attest(ctx, part*each+i) })
		if err != nil {
			return err
		}
		var now int64
		if now, peak, err = resident(pid); err != nil {
			return err
		}
		if last, err = open(pid); err != nil {
			return err
		}
		if part == 0 {
			first = last
		}
		fmt.Fprintf(out, "%10d  %10.0f  %11d  %11d  %7d  %7d  %5d\n", (part+1)*each, float64(o.done)/o.wall.Seconds(),
			o.cost().Microseconds(), now>>20, peak>>20, last.threads, last.files)
	}
	var errs []error
	if peak > gateResident {
		errs = append(errs, fmt.Errorf("%d MB were resident, the gate is %d", peak>>20, gateResident>>20))
	}
	if last.files > first.files+gateHandles || last.threads > first.threads+gateHandles {
		errs = append(errs, fmt.Errorf("threads and files grew from %+v to %+v", first, last))
	}
	return errors.Join(errs...)
}

// handles are what a leak of goroutines shows up as from outside.
type handles struct{ threads, files int }

func open(pid int) (h handles, err error) {
	for name, n := range map[string]*int{"task": &h.threads, "fd": &h.files} {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			return h, err
		}
		*n = len(entries)
	}
	return h, nil
}
