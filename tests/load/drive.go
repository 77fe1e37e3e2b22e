package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// outcome is a round of one kind of request.
type outcome struct {
	done    int
	refused int // told to come back later, and not counted as done
	wall    time.Duration
	cpu     time.Duration // of the broker
	took    []time.Duration
}

func (o outcome) cost() time.Duration { return o.cpu / time.Duration(max(o.done, 1)) }
func (o outcome) percentile(p int) time.Duration {
	if len(o.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(o.took))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

// errBusy marks a request that the broker shed.
var errBusy = errors.New("the broker is busy")

// drive makes n requests, `parallel` at a time, and stops at the first that
// fails otherwise than by being shed.
func (s *stage) drive(ctx context.Context, n, parallel int, request func(ctx context.Context, worker, i int) error) (outcome, error) {
	return drive(ctx, s.world.Broker.PID(), n, parallel, request)
}

// drive is that of stage, for the server of a process.
func drive(ctx context.Context, pid, n, parallel int, request func(ctx context.Context, worker, i int) error) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	before, err := cpuTime(pid)
	if err != nil {
		return outcome{}, err
	}
	var (
		next, refused atomic.Int64
		wg            sync.WaitGroup
	)
	took := make([][]time.Duration, parallel)
	start := time.Now()
	for w := range parallel {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				t := time.Now()
				switch err := request(ctx, w, i); {
				case errors.Is(err, errBusy):
					refused.Add(1)
				case err != nil:
					cancel(err)
					return
				default:
					took[w] = append(took[w], time.Since(t))
				}
			}
		})
	}
	wg.Wait()
	o := outcome{wall: time.Since(start), refused: int(refused.Load()), took: slices.Concat(took...)}
	o.done = len(o.took)
	if err := context.Cause(ctx); err != nil {
		return o, err
	}
	after, err := cpuTime(pid)
	o.cpu = after - before
	return o, err
}

// clockTick is the unit of /proc/PID/stat (proc(5), sysconf(_SC_CLK_TCK)),
// which is 1/100 s on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime is the user and system time of a process.
func cpuTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold
	// anything; fields are counted from behind it.
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is malformed", pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, err
}

// resident is the memory of a process that is in RAM, in bytes, now and at
// most so far.
func resident(pid int) (now, peak int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			now = kb << 10
		case name == "VmHWM":
			peak = kb << 10
		}
	}
	return now, peak, nil
}
