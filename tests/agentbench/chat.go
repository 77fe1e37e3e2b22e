package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// The gates: how many times the rate of a server of nothing but the protocol's
// library the agent reaches, with the same client, unless the machine lets no more
// through, which is to reach this share of a copy without a protocol; what share of that it reaches
// when a policy judges each piece; how much longer another container's exec may
// take meanwhile, and how long an answer to Check.
const (
	gateBeyond = 3.0
	gateCopy   = 0.9
	gateJudged = 0.8
	gateStarve = 4.0
	gateCheck  = 20 * time.Millisecond
)

// readSizes are what runtimes ask for in one call, and more.
var readSizes = []int{32 << 10, 256 << 10}

const (
	// chatRounds is how often each rate is taken.
	chatRounds = 3
	// slower is by how much less is read through the protocol's library, which
	// takes as long for it.
	slower = 4
)

// rates of one size, in MB/s, each the best of some rounds: who answers, and with
// which client.
type rates struct {
	agentFrames, agentLibrary, libraryFrames, libraryLibrary, raw float64
	judgedFrames, constantFrames                                  float64 // under policies
}

// chatters are agents that differ in their policies: one without, one with a
// policy whose rule for output says yes to everything, and one with a policy whose
// rule asks which container it is, and for notes.
type chatters struct{ bare, constant, judged *barepod.Agent }

const (
	ordinaryRules = `package agent_policy
CreateSandboxRequest := true
StartContainerRequest := true
SignalProcessRequest := true
WaitProcessRequest := true
RemoveStaleVirtiofsShareMountsRequest := true
`
	constantPolicy = ordinaryRules + `
CreateContainerRequest := true
RemoveContainerRequest := true
ReadStreamRequest := true
`
	judgingPolicy = ordinaryRules + `
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["/pstate", input.container_id]), "value": "it runs"}]}
RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}]}
ReadStreamRequest if {
	input.len <= 1048576
	data.pstate[input.container_id] == "it runs"
}
`
)

// startAll starts them, each with its sandbox. They must be stopped, also after an
// error.
func (c *chatters) startAll(ctx context.Context, o options) error {
	for _, s := range []struct {
		a      **barepod.Agent
		policy string
	}{{&c.bare, ""}, {&c.constant, constantPolicy}, {&c.judged, judgingPolicy}} {
		a, err := o.startUnder(ctx, s.policy)
		if err != nil {
			return err
		}
		*s.a = a
		if err := a.Sandbox(ctx, false); err != nil {
			return err
		}
	}
	return nil
}

func (c *chatters) stopAll() (err error) {
	for _, a := range []*barepod.Agent{c.bare, c.constant, c.judged} {
		if a != nil {
			err = errors.Join(err, a.Stop())
		}
	}
	return err
}

// chat lets a container write as fast as it can while it is read.
func chat(ctx context.Context, o options, r *report) (err error) {
	var all chatters
	defer func() { err = errors.Join(err, all.stopAll()) }()
	if err := all.startAll(ctx, o); err != nil {
		return err
	}
	for _, size := range readSizes {
		var top rates
		for range chatRounds {
			if err := top.round(ctx, all, o.chatMB, size); err != nil {
				return err
			}
		}
		r.gate(fmt.Sprintf("output in pieces of %d kB", size>>10), fmt.Sprintf("%.0f MB/s", top.agentFrames),
			fmt.Sprintf("the library's server %.0f, copy without protocol %.0f", top.libraryFrames, top.raw),
			fmt.Sprintf("%.0f times the first, or %.0f %% of the second", gateBeyond, 100*gateCopy),
			top.agentFrames >= gateBeyond*top.libraryFrames || top.agentFrames >= gateCopy*top.raw)
		r.gate("  with an agent policy", fmt.Sprintf("%.0f MB/s", top.judgedFrames),
			fmt.Sprintf("without one %.0f, by a constant rule %.0f", top.agentFrames, top.constantFrames),
			fmt.Sprintf("%.0f %% of the first", 100*gateJudged), top.judgedFrames >= gateJudged*top.agentFrames)
		r.add("  to the library's client", fmt.Sprintf("%.0f MB/s", top.agentLibrary), fmt.Sprintf("the library's server %.0f", top.libraryLibrary))
	}
	return starve(ctx, all.bare, o, r)
}

// round measures each once, in turns.
func (t *rates) round(ctx context.Context, all chatters, megabytes, size int) error {
	less := max(megabytes/slower, 1)
	for _, m := range []struct {
		best *float64
		rate func() (float64, error)
	}{
		{&t.agentFrames, func() (float64, error) { return chatty(ctx, all.bare, megabytes, size, readFrames(chattyID)) }},
		{&t.judgedFrames, func() (float64, error) { return chatty(ctx, all.judged, megabytes, size, readFrames(chattyID)) }},
		{&t.constantFrames, func() (float64, error) { return chatty(ctx, all.constant, megabytes, size, readFrames(chattyID)) }},
		{&t.raw, func() (float64, error) { return bareCopy(ctx, relayCommand, megabytes, size, readRelay) }},
		{&t.libraryFrames, func() (float64, error) { return bareCopy(ctx, protocolCommand, less, size, readFrames("copy")) }},
		{&t.agentLibrary, func() (float64, error) { return chatty(ctx, all.bare, less, size, readLibrary(chattyID)) }},
		{&t.libraryLibrary, func() (float64, error) { return bareCopy(ctx, protocolCommand, less, size, readLibrary("copy")) }},
	} {
		got, err := m.rate()
		if err != nil {
			return err
		}
		*m.best = max(*m.best, got)
	}
	return nil
}

const chattyID = "chatty"

// chatty returns the rate in MB/s at which the output of a container is read.
func chatty(ctx context.Context, a *barepod.Agent, megabytes, size int, read reading) (float64, error) {
	if err := a.Run(ctx, chattyID, writer(megabytes)...); err != nil {
		return 0, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.Socket)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	n, err := read(ctx, conn, size)
	took := time.Since(begin)
	if err == nil && n != int64(megabytes)<<20 {
		err = fmt.Errorf("%d bytes of %d MiB arrived", n, megabytes)
	}
	if err != nil {
		return 0, err
	}
	_, err = a.Remove(ctx, chattyID)
	return float64(n) / 1e6 / took.Seconds(), err
}

func writer(megabytes int) []string {
	return []string{"/bin/busybox", "dd", "if=/dev/zero", "bs=256k", fmt.Sprintf("count=%d", megabytes*4)}
}

// reader is the agent, or what stands in for it.
type reader interface {
	ReadStdout(context.Context, *agent.ReadStreamRequest) (*agent.ReadStreamResponse, error)
}

func readAll(ctx context.Context, a reader, id string, size int) (n int64, err error) {
	for {
		resp, err := a.ReadStdout(ctx, &agent.ReadStreamRequest{ContainerId: id, Len: uint32(size)})
		if err != nil || len(resp.GetData()) == 0 {
			return n, err
		}
		n += int64(len(resp.Data))
	}
}

// others are what others than the chatty container wait for.
type others struct{ execs, checks durations }

// starve measures execs in one container and Check, on the connection that output
// is read by: quiet, and while another container chats.
func starve(ctx context.Context, a *barepod.Agent, o options, r *report) error {
	if err := a.Run(ctx, "other", "/bin/sleep", "100000"); err != nil {
		return err
	}
	quiet, err := askOthers(ctx, a, "quiet")
	if err != nil {
		return err
	}
	if err := a.Run(ctx, "flood", writer(1<<20)...); err != nil { // more than will be read
		return err
	}
	flood, stop := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() {
		_, err := readAll(flood, a, "flood", readSizes[0])
		read <- err
	}()
	busy, err := askOthers(ctx, a, "busy")
	stop()
	if flooded := <-read; !errors.Is(flooded, context.Canceled) {
		err = errors.Join(err, fmt.Errorf("the chatty container: %w", flooded))
	}
	if err != nil {
		return err
	}
	ratio := float64(busy.execs.at(0.5)) / float64(quiet.execs.at(0.5))
	r.gate("another container's exec meanwhile", ms(busy.execs.at(0.5)), "quiet "+ms(quiet.execs.at(0.5)), fmt.Sprintf("%.0f times", gateStarve), ratio <= gateStarve)
	r.gate("Check meanwhile, 99th of 100", ms(busy.checks.at(0.99)), fmt.Sprintf("median %s, quiet %s and %s", ms(busy.checks.at(0.5)), ms(quiet.checks.at(0.99)), ms(quiet.checks.at(0.5))),
		fmt.Sprintf("%d ms", gateCheck.Milliseconds()), busy.checks.at(0.99) <= gateCheck)
	_, err = a.Remove(ctx, "flood")
	return err
}

// askOthers makes 30 execs, and asks a thousand times whether the agent serves.
func askOthers(ctx context.Context, a *barepod.Agent, name string) (all others, err error) {
	for n := range 30 {
		begin := time.Now()
		if _, err := a.Do(ctx, "other", fmt.Sprintf("%s%d", name, n), "/bin/echo"); err != nil {
			return all, err
		}
		all.execs = append(all.execs, time.Since(begin))
	}
	for range 1000 {
		begin := time.Now()
		if _, err := a.Health.Check(ctx, &agent.CheckRequest{}); err != nil {
			return all, err
		}
		all.checks = append(all.checks, time.Since(begin))
	}
	return all, nil
}
