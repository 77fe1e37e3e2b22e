package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// The gates: which part of the bare copy's rate the agent reaches, and how much
// longer another container's exec may take meanwhile.
const (
	gateChat   = 0.6
	gateStarve = 4.0
)

// readSizes are what runtimes ask for in one call, and more.
var readSizes = []int{32 << 10, 256 << 10}

// chat lets a container write as fast as it can while it is read.
func chat(ctx context.Context, o options, r *report) (err error) {
	a, err := o.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Stop()) }()
	if err := a.Sandbox(ctx, false); err != nil {
		return err
	}
	for i, size := range readSizes {
		var ours, same, bare []float64
		for round := range 3 {
			rate, err := chatty(ctx, a, fmt.Sprintf("chat%d-%d", i, round), o.chatMB, size)
			if err != nil {
				return err
			}
			ours = append(ours, rate)
			if rate, err = bareCopy(ctx, protocolCommand, o.chatMB, size, readProtocol); err != nil {
				return err
			}
			same = append(same, rate)
			if rate, err = bareCopy(ctx, relayCommand, o.chatMB, size, readRelay); err != nil {
				return err
			}
			bare = append(bare, rate)
		}
		got, ceiling := best(ours), best(same)
		beside := fmt.Sprintf("bare copy in the protocol %.0f MB/s, without %.0f", ceiling, best(bare))
		r.gate(fmt.Sprintf("output in pieces of %d kB", size>>10), fmt.Sprintf("%.0f MB/s", got), beside,
			fmt.Sprintf("%.1f of the first", gateChat), got >= gateChat*ceiling)
	}
	return starve(ctx, a, o, r)
}

func best(rates []float64) float64 {
	top := 0.0
	for _, v := range rates {
		top = max(top, v)
	}
	return top
}

// chatty returns the rate in MB/s at which the output of a container is read.
func chatty(ctx context.Context, a *barepod.Agent, id string, megabytes, size int) (float64, error) {
	if err := a.Run(ctx, id, writer(megabytes)...); err != nil {
		return 0, err
	}
	n, took, err := readAll(ctx, a, id, size)
	if err == nil && n != int64(megabytes)<<20 {
		err = fmt.Errorf("%d bytes of %d MiB arrived", n, megabytes)
	}
	if err != nil {
		return 0, err
	}
	_, err = a.Remove(ctx, id)
	return float64(n) / 1e6 / took.Seconds(), err
}

func writer(megabytes int) []string {
	return []string{"/bin/busybox", "dd", "if=/dev/zero", "bs=256k", fmt.Sprintf("count=%d", megabytes*4)}
}

// reader is the agent, or what stands in for it.
type reader interface {
	ReadStdout(context.Context, *agent.ReadStreamRequest) (*agent.ReadStreamResponse, error)
}

func readAll(ctx context.Context, a reader, id string, size int) (n int64, took time.Duration, err error) {
	begin := time.Now()
	for {
		resp, err := a.ReadStdout(ctx, &agent.ReadStreamRequest{ContainerId: id, Len: uint32(size)})
		if err != nil || len(resp.GetData()) == 0 {
			return n, time.Since(begin), err
		}
		n += int64(len(resp.Data))
	}
}

// starve measures execs in one container, quiet and while another chats.
func starve(ctx context.Context, a *barepod.Agent, o options, r *report) error {
	if err := a.Run(ctx, "other", "/bin/sleep", "100000"); err != nil {
		return err
	}
	serial := 0
	execs := func(enough func(n int) bool) (all durations, err error) {
		for n := 0; !enough(n); n++ {
			serial++
			begin := time.Now()
			if _, err := a.Do(ctx, "other", fmt.Sprintf("e%d", serial), "/bin/echo"); err != nil {
				return nil, err
			}
			all = append(all, time.Since(begin))
		}
		return all, nil
	}
	quiet, err := execs(func(n int) bool { return n == 30 })
	if err != nil {
		return err
	}
	if err := a.Run(ctx, "flood", writer(1<<20)...); err != nil { // more than will be read
		return err
	}
	flood, stop := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() {
		_, _, err := readAll(flood, a, "flood", readSizes[0])
		read <- err
	}()
	busy, err := execs(func(n int) bool { return n == 30 })
	stop()
	if flooded := <-read; !errors.Is(flooded, context.Canceled) {
		err = errors.Join(err, fmt.Errorf("the chatty container: %w", flooded))
	}
	if err != nil {
		return err
	}
	ratio := float64(busy.at(0.5)) / float64(quiet.at(0.5))
	r.gate("another container's exec meanwhile", ms(busy.at(0.5)), "quiet "+ms(quiet.at(0.5)), fmt.Sprintf("%.0f times", gateStarve), ratio <= gateStarve)
	_, err = a.Remove(ctx, "flood")
	return err
}
