package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// The gates of size, start and starts.
const (
	gateSize  = 40e6
	gateCold  = 50 * time.Millisecond
	gateStart = 10 * time.Millisecond
)

func (o options) program() string { return filepath.Join(o.bin, "guest-agent") }

func (o options) start(ctx context.Context) (*barepod.Agent, error) { return o.startUnder(ctx, "") }

func (o options) startUnder(ctx context.Context, policy string) (*barepod.Agent, error) {
	return barepod.Start(ctx, barepod.Config{Program: o.program(), Runtime: o.runtime, SameMounts: true, Policy: policy})
}

func size(_ context.Context, o options, r *report) error {
	fi, err := os.Stat(o.program())
	if err != nil {
		return err
	}
	r.gate("program, stripped", mb(fi.Size()), "", "40 MB", fi.Size() < gateSize)
	return nil
}

// cold is the time from the start of the program to its first answered Check.
func cold(ctx context.Context, o options, r *report) error {
	var all durations
	for range 15 {
		a, err := o.start(ctx)
		if err != nil {
			return err
		}
		all = append(all, a.Cold)
		if err := a.Stop(); err != nil {
			return err
		}
	}
	r.gate("start to first answered Check", ms(all.at(0.5)), "least "+ms(all.at(0)), "50 ms", all.at(0.5) < gateCold)
	return nil
}

// starts compares what the agent and the bare runtime take from the request to
// the running program, with the same specification.
func starts(ctx context.Context, o options, r *report) (err error) {
	a, err := o.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Stop()) }()
	if err := a.Sandbox(ctx, false); err != nil {
		return err
	}
	// The bare runtime gets the specification that the agent made for this one.
	if err := a.Run(ctx, "first", "/bin/sleep", "100000"); err != nil {
		return err
	}
	b := bare{runtime: o.runtime, dir: filepath.Join(a.Dir, "bare")}
	if err := b.prepare(filepath.Join(a.State(), "first"), a.Cgroup+"/first", a.Cgroup+"/bare"); err != nil {
		return err
	}
	var ours, theirs, above, execs, bareExecs durations
	for i := range o.rounds {
		p := pair{agent: a, bare: b, id: fmt.Sprintf("c%d", i)}
		if err := p.measure(ctx, i%2 == 0); err != nil {
			return err
		}
		ours, theirs, above = append(ours, p.ours), append(theirs, p.theirs), append(above, p.ours-p.theirs)
		execs, bareExecs = append(execs, p.exec), append(bareExecs, p.bareExec)
	}
	r.gate("container start, above the bare one", ms(above.at(0.5)), fmt.Sprintf("median of %d pairs", o.rounds), "10 ms", above.at(0.5) <= gateStart)
	r.add("container start, median", ms(ours.at(0.5)), "bare "+ms(theirs.at(0.5)))
	r.add("container start, least", ms(ours.at(0)), "bare "+ms(theirs.at(0)))
	r.add("exec, median", ms(execs.at(0.5)), "bare "+ms(bareExecs.at(0.5)))
	return nil
}

// pair is one container of each side, made one after the other.
type pair struct {
	agent *barepod.Agent
	bare  bare
	id    string

	ours, theirs, exec, bareExec time.Duration
}

func (p *pair) measure(ctx context.Context, agentFirst bool) error {
	sides := []func(context.Context) error{p.viaAgent, p.viaBare}
	if !agentFirst {
		sides[0], sides[1] = sides[1], sides[0]
	}
	for _, side := range sides {
		if err := side(ctx); err != nil {
			return err
		}
	}
	if err := p.bare.delete(ctx, p.id); err != nil {
		return err
	}
	_, err := p.agent.Remove(ctx, p.id)
	return err
}

func (p *pair) viaAgent(ctx context.Context) error {
	req, err := p.agent.Request(p.id, "/bin/sleep", "100000")
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := p.agent.Launch(ctx, req); err != nil {
		return err
	}
	p.ours = time.Since(begin)
	begin = time.Now()
	err = p.agent.Exec(ctx, p.id, "x", "/bin/sleep", "0")
	p.exec = time.Since(begin)
	return err
}

func (p *pair) viaBare(ctx context.Context) (err error) {
	if p.theirs, err = p.bare.start(ctx, p.id); err != nil {
		return err
	}
	p.bareExec, err = p.bare.exec(ctx, p.id)
	return err
}

// bare is the OCI runtime alone.
type bare struct{ runtime, dir string }

// prepare writes the bundle: the agent's own, in another cgroup.
func (b bare) prepare(bundle, cgroup, other string) error {
	raw, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	config := strings.ReplaceAll(string(raw), cgroup, other)
	return os.WriteFile(filepath.Join(b.dir, "config.json"), []byte(config), 0o600)
}

func (b bare) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, b.runtime, append([]string{"--root", filepath.Join(b.dir, "root")}, args...)...)
}

// start creates and starts, with pipes for the streams as the agent has them.
func (b bare) start(ctx context.Context, id string) (time.Duration, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close(); _ = out.Close() }()
	begin := time.Now()
	create := b.command(ctx, "create", "--bundle", b.dir, "--pid-file", filepath.Join(b.dir, "pid"), id)
	create.Stdin, create.Stdout, create.Stderr = in, out, out
	if err := create.Run(); err != nil {
		return 0, fmt.Errorf("bare create: %w", err)
	}
	if err := b.command(ctx, "start", id).Run(); err != nil {
		return 0, fmt.Errorf("bare start: %w", err)
	}
	return time.Since(begin), nil
}

func (b bare) exec(ctx context.Context, id string) (time.Duration, error) {
	begin := time.Now()
	if out, err := b.command(ctx, "exec", "--detach", "--cwd", "/", id, "/bin/sleep", "0").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("bare exec: %w: %s", err, out)
	}
	return time.Since(begin), nil
}

func (b bare) delete(ctx context.Context, id string) error {
	if out, err := b.command(ctx, "delete", "--force", id).CombinedOutput(); err != nil {
		return fmt.Errorf("bare delete: %w: %s", err, out)
	}
	return nil
}

// many runs many containers at the same time and many processes in them.
func many(ctx context.Context, o options, r *report) (err error) {
	a, err := o.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Stop()) }()
	if err := a.Sandbox(ctx, false); err != nil {
		return err
	}
	name := func(i int) string { return fmt.Sprintf("m%d", i) }
	begin := time.Now()
	if err := inParallel(o.many, func(i int) error { return a.Run(ctx, name(i), "/bin/sleep", "100000") }); err != nil {
		return err
	}
	r.add(fmt.Sprintf("%d containers started", o.many), ms(time.Since(begin)/time.Duration(max(o.many, 1)))+" each", "eight at a time")
	begin = time.Now()
	err = inParallel(o.execs, func(i int) error {
		id, execID := name(i%o.many), fmt.Sprintf("x%d", i)
		got, err := a.Do(ctx, id, execID, "/bin/sh", "-c", fmt.Sprintf("echo %s; exit %d", execID, i%100))
		if err == nil && (got.Out != execID+"\n" || got.Status != i%100) {
			err = fmt.Errorf("%s in %s answered %+v", execID, id, got)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.add(fmt.Sprintf("%d execs to their end", o.execs), ms(time.Since(begin)/time.Duration(max(o.execs, 1)))+" each", "eight at a time")
	resident, err := memoryOf(a.PID(), residentNow)
	if err != nil {
		return err
	}
	r.add("resident with all of them", mb(resident), "")
	begin = time.Now()
	if err := inParallel(o.many, func(i int) error {
		_, err := a.Remove(ctx, name(i))
		return err
	}); err != nil {
		return err
	}
	r.add("removed", ms(time.Since(begin)/time.Duration(max(o.many, 1)))+" each", "eight at a time")
	_, err = a.DestroySandbox(ctx, &agent.DestroySandboxRequest{})
	return err
}

// inParallel does f n times, eight at a time, and returns the first error.
func inParallel(n int, f func(i int) error) error {
	const workers = 8
	next, errs := make(chan int), make(chan error, workers)
	for range workers {
		go func() {
			var first error
			for i := range next {
				if first == nil {
					first = f(i)
				}
			}
			errs <- first
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	var all []error
	for range workers {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
