// Command imagebench says how fast images are pulled, beside the tools that
// people pull with today. It fails if a ratio falls below its gate.
//
//	imagebench [--rounds N] [--thorough] [--case NAME,...] [--peer NAME,...] [--list] [--stages] [--profiles DIR]
//
// A run in full, which is 5 rounds of every case, takes about two hours
// on two quiet cores, after the images have been assembled once: a peer
// that cannot be the one that counts is asked in the first round alone. With
// --thorough all are asked in every round, which takes twice as long; with
// --rounds 1 it is half an hour, and says whether things work, not how fast.
//
// All tools take turns in one run, another one first in each round, against one registry on loopback, into
// directories that are fresh each time. What counts is the CPU time of all
// processes of a tool, and the wall time, from the start of its pull to its
// end; daemons are up before. Where the rounds do not agree on whether the setting
// for small guests holds its gate, our two settings have more of them. The tree
// that a tool made is compared with ours, inode by inode, before its time counts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

var errGate = errors.New("below a gate")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imagebench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	bin, cache   string
	memory       string
	rounds       int
	cases, peers []string
	list, stages bool
	thorough     bool
	profiles     string
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := pflag.NewFlagSet("imagebench", pflag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "where imagepull is")
	flags.StringVar(&o.cache, "cache", ".cache/imagebench", "where assembled layers, and bin/ with peers (build/peers), are")
	flags.StringVar(&o.memory, "memory", "/dev/shm", "a directory on tmpfs")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds, of which the median counts")
	flags.StringSliceVar(&o.cases, "case", nil, "only the cases whose name has one of these parts")
	flags.StringSliceVar(&o.peers, "peer", nil, "only the peers whose name has one of these parts")
	flags.BoolVar(&o.list, "list", false, "list cases and peers, and stop")
	flags.BoolVar(&o.stages, "stages", true, "profile one more pull of ours per case, for the CPU time of each stage")
	flags.BoolVar(&o.thorough, "thorough", false, "ask every peer in every round, also those that the first one has left far behind")
	flags.StringVar(&o.profiles, "profiles", "", "keep the CPU profiles of --stages in this directory")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	if o.rounds < 1 {
		return errors.New("at least one round")
	}
	for _, dir := range []*string{&o.bin, &o.cache} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	tools, absent := o.tools()
	if o.list {
		for _, c := range cases() {
			fmt.Fprintln(out, "case", c.name())
		}
		for _, t := range tools {
			fmt.Fprintln(out, "tool", t.name())
		}
	}
	for _, why := range absent {
		fmt.Fprintln(out, "absent:", why)
	}
	if o.list {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("unpacking images with owners and devices needs root")
	}
	return bench(ctx, o, tools, out)
}

// tools lists ours and the peers, and what could not be found of them.
func (o options) tools() (found []tool, absent []string) {
	for _, t := range append([]tool{own(o, false), own(o, true), ownOverOne(o)}, peers(o)...) {
		if !t.isOurs() && !named(t.name(), o.peers) {
			continue
		}
		if missing := t.missing(); missing != "" {
			absent = append(absent, t.name()+": "+missing+" is not there")
			continue
		}
		found = append(found, t)
	}
	return found, absent
}

// named reports whether name has one of the parts, or there are none.
func named(name string, parts []string) bool {
	return len(parts) == 0 || slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(name, p) })
}

func bench(ctx context.Context, o options, tools []tool, out io.Writer) (err error) {
	group, err := newGroup()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, group.close()) }()
	reg, err := serve()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.close()) }()
	fmt.Fprintln(out, header(o.rounds, runtime.NumCPU()))
	below, reports := false, map[string]*report{}
	for _, c := range cases() {
		if !named(c.name(), o.cases) {
			continue
		}
		r := &runner{options: o, group: group, registry: reg, testCase: c}
		rep, err := r.run(ctx, tools, out)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		reports[c.name()] = &rep
		if rep.judge(out, reports[c.twin()]) {
			below = true
		}
	}
	if below {
		return errGate
	}
	return nil
}
