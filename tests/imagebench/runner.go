package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A runner runs one case.
type runner struct {
	options
	testCase testCase
	group    *group
	registry *registry

	archives []string
	image    *image
	files    secrets
	results  []*result
	more     pair              // rounds of our two settings alone
	ours     tree              // what the first pull of ours made
	parts    map[string][]part // of the ceiling, one of each round
}

// result is what one tool did in all rounds.
type result struct {
	tool   tool
	rounds []spent
	wrong  string // why its times do not count
}

// run measures every tool that can do the case and returns the report.
func (r *runner) run(ctx context.Context, tools []tool, out io.Writer) (rep report, err error) {
	dir, err := os.MkdirTemp(r.cache, "case-")
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := r.prepare(ctx, dir); err != nil {
		return rep, err
	}
	for _, t := range tools {
		if t.can(r.testCase) {
			r.results = append(r.results, &result{tool: t})
		}
	}
	for n := range r.rounds {
		if !r.testCase.slow { // there, the network is the ceiling
			if err := r.measureParts(ctx); err != nil {
				return rep, fmt.Errorf("ceiling: %w", err)
			}
		}
		for i := range r.results {
			res := r.results[(i+n)%len(r.results)] // another begins each time
			if n > 0 && !r.thorough && res.hopeless(r.results, r.testCase.gate().against) {
				continue
			}
			if err := r.round(ctx, res); err != nil {
				return rep, err
			}
		}
	}
	if err := r.settle(ctx); err != nil {
		return rep, err
	}
	if r.stages {
		if rep.stages, err = r.profile(ctx, dir); err != nil {
			return rep, err
		}
	}
	rep.testCase, rep.image, rep.entries, rep.results, rep.ceiling = r.testCase, r.image, len(r.ours), r.results, r.ceiling()
	rep.more = r.more
	rep.print(out)
	return rep, nil
}

// prepare builds the image and writes what opens it.
func (r *runner) prepare(ctx context.Context, dir string) error {
	k, err := newKeys()
	if err != nil {
		return err
	}
	if r.archives, err = r.testCase.archives(ctx, r.cache); err != nil {
		return err
	}
	if r.image, err = r.testCase.build(ctx, r.archives, dir, k); err != nil {
		return err
	}
	r.registry.offer(r.image, r.testCase.slow)
	r.files = secrets{kek: filepath.Join(dir, "kek"), private: filepath.Join(dir, "private.pem"), policy: filepath.Join(dir, "policy.json")}
	der, err := x509.MarshalPKCS8PrivateKey(k.rsa)
	return errors.Join(err,
		os.WriteFile(r.files.kek, k.kek.Reveal(), 0o600),
		os.WriteFile(r.files.private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(r.files.policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
}

// round is one pull of one tool. That a peer fails is its result; that ours
// does ends the run.
func (r *runner) round(ctx context.Context, res *result) error {
	if res.wrong != "" {
		return nil
	}
	cost, seen, err := r.pull(ctx, res.tool)
	if err != nil {
		res.wrong = "failed: " + err.Error()
		if res.tool.isOurs() || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", res.tool.name(), err)
		}
		return nil //nolint:nilerr // it is told in the table
	}
	if r.ours == nil {
		r.ours = seen
	}
	if list, n := r.ours.differences(seen); n > 0 {
		res.wrong = fmt.Sprintf("its tree differs in %d of %d inodes: %q", n, len(r.ours), list)
		if res.tool.isOurs() { // twice the same image, and two trees
			return fmt.Errorf("%s: %s", res.tool.name(), res.wrong)
		}
		return nil
	}
	res.rounds = append(res.rounds, cost)
	return nil
}

func (r *runner) pull(ctx context.Context, t tool) (cost spent, seen tree, err error) {
	p, err := newPlace(ctx, r.memory, r.testCase.disk)
	if err != nil {
		return cost, nil, err
	}
	defer func() { err = errors.Join(err, r.group.end(), p.undo()) }()
	s := &session{testCase: r.testCase, dir: p.dir, host: r.registry.host, files: r.files, group: r.group}
	work, err := t.start(ctx, s)
	if err != nil {
		return cost, nil, err
	}
	defer func() { err = errors.Join(err, work.stop()) }()
	if err := touch(r.footprint()); err != nil {
		return cost, nil, err
	}
	if cost, err = r.group.watch(func() error { return work.pull(ctx) }); err != nil {
		return cost, nil, err
	}
	dir, err := work.tree(ctx)
	if err != nil {
		return cost, nil, err
	}
	seen, err = inventory(dir)
	return cost, seen, err
}

// leftBehind is how many times as long as the fastest a peer may take in the
// first round to be asked again.
const leftBehind = 1.3

// hopeless reports that the tool was not, in the first round, among those of
// which the fastest counts, or was too far from it.
func (res *result) hopeless(all []*result, against kind) bool {
	if res.tool.isOurs() || len(res.rounds) == 0 {
		return false
	}
	if against != anyPeer && res.tool.kind() != against {
		return true
	}
	for _, other := range all {
		counts := !other.tool.isOurs() && len(other.rounds) > 0 && (against == anyPeer || other.tool.kind() == against)
		if counts && res.rounds[0].wall.Seconds() > other.rounds[0].wall.Seconds()*leftBehind {
			return true
		}
	}
	return false
}

// median of the rounds, each quantity by itself.
func (res *result) median() spent {
	return spent{
		cpu:    middle(res.rounds, func(s spent) time.Duration { return s.cpu }),
		wall:   middle(res.rounds, func(s spent) time.Duration { return s.wall }),
		others: middle(res.rounds, func(s spent) time.Duration { return s.others }),
		rss:    middle(res.rounds, func(s spent) int64 { return s.rss }),
	}
}

func middle[T cmp.Ordered](rounds []spent, of func(spent) T) T {
	var all []T
	for _, s := range rounds {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
