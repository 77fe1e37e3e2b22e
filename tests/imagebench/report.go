package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A report is what was measured of a case.
type report struct {
	testCase testCase
	image    *image
	entries  int
	ceiling  ceiling
	stages   string
	results  []*result
	more     pair // rounds of our two settings alone
}

func (r report) of(name string) (spent, bool) {
	for _, res := range r.results {
		if res.tool.name() == name && len(res.rounds) > 0 {
			return res.median(), true
		}
	}
	return spent{}, false
}

// best is the fastest of the kind, by wall time.
func (r report) best(k kind) *result {
	var all []*result
	for _, res := range r.results {
		if len(res.rounds) > 0 && (res.tool.kind() == k || k == anyPeer && !res.tool.isOurs()) {
			all = append(all, res)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b *result) int { return cmp.Compare(a.median().wall, b.median().wall) })
}

func (r report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s: %d MB, %d MB unpacked, %d inodes\n", r.testCase.name(), r.image.compressed/1e6, r.image.size/1e6, r.entries)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "median of\tCPU s\twall s\tMB/s\tpeak MB\tothers' CPU s\ttool\n")
	for _, res := range r.results {
		if res.wrong != "" {
			fmt.Fprintf(t, "-\t\t\t\t\t\t%s %s\n", res.tool.name(), res.wrong)
			continue
		}
		m := res.median()
		fmt.Fprintf(t, "%d\t%.2f\t%.2f\t%.0f\t%.0f\t%.2f\t%s\n", len(res.rounds), m.cpu.Seconds(), m.wall.Seconds(),
			float64(r.image.size)/1e6/m.wall.Seconds(), float64(m.rss)/1e6, m.others.Seconds(), res.tool.name())
	}
	_ = t.Flush()
	if !r.testCase.slow {
		fmt.Fprintln(out, "ceiling:", r.ceiling)
	}
	if r.stages != "" {
		fmt.Fprintln(out, "CPU s of our stages:", r.stages)
	}
}

// judge prints how the gates of the case stand and reports whether one is
// missed. plain is the report of the same case without encryption, if there was one.
func (r report) judge(out io.Writer, plain *report) (missed bool) {
	say := func(what string, seen, gate, goal float64, atLeast bool) {
		verdict := "MISSED"
		switch ok := func(limit float64) bool { return seen >= limit == atLeast || seen == limit }; {
		case ok(goal):
			verdict = "goal"
		case ok(gate):
			verdict = "ok"
		}
		missed = missed || verdict == "MISSED"
		fmt.Fprintf(out, "%-7s %.2f %s (gate %.4g, goal %.4g)\n", verdict, seen, what, gate, goal)
	}
	m, _ := r.of(own(options{}, false).name())
	g := r.testCase.gate()
	if peer := r.best(g.against); peer != nil {
		p := peer.median()
		say(fmt.Sprintf("times as fast as %s; %.2f times by CPU time", peer.tool.name(), p.cpu.Seconds()/m.cpu.Seconds()),
			p.wall.Seconds()/m.wall.Seconds(), g.gate, g.goal, true)
	} else {
		fmt.Fprintln(out, "unjudged: none of the tools that the gate speaks of was there")
	}
	if r.testCase.slow { // the network is the limit, and the memory what it is elsewhere
		say("MB at the most", float64(m.rss)/1e6, gateRSS/1e6, gateRSS/1e6, false)
		return missed
	}
	if one, ok := r.of(ownOverOne(options{}).name()); ok {
		say("times as long as over one connection", m.wall.Seconds()/one.wall.Seconds(), gateLanes, gateLanes, false)
	}
	say(fmt.Sprintf("of the ceiling, in the time that the machine left us; %.2f of it by the clock", r.ceiling.wall/m.wall.Seconds()),
		r.ceiling.wall/m.left().Seconds(), gateCeiling, gateCeiling, true)
	say("MB at the most", float64(m.rss)/1e6, gateRSS/1e6, gateRSS/1e6, false)
	if small, ok := r.of(own(options{}, true).name()); ok {
		say("MB at the most, small guest", float64(small.rss)/1e6, gateSmallRSS/1e6, gateSmallRSS/1e6, false)
		kept := r.kept()
		say(fmt.Sprintf("of the speed kept in the setting for small guests, in the median of %d rounds; %.2f times as long by the medians of %d",
			len(kept), small.wall.Seconds()/m.wall.Seconds(), len(kept)-len(r.more.kept())), kept[(len(kept)-1)/2], gateSmall, gateSmall, true)
	}
	if r.testCase.encrypted && plain != nil {
		p, _ := plain.of(own(options{}, false).name())
		say(r.decryption(m.cpu.Seconds(), p.cpu.Seconds()))
	}
	return missed
}

// kept lists what each round says is left of our speed in the setting for small
// guests, the least first: of an even number the lesser of the middle two counts.
// The two pulls follow each other, and the machine's pace differs more from round
// to round than they do.
func (r report) kept() []float64 {
	all := append(ourPair(r.results).kept(), r.more.kept()...)
	slices.Sort(all)
	return all
}

// decryption holds the CPU seconds of an encrypted pull against those of the
// plain one. Without compression a plain pull hashes its bytes once and does
// little else, and an encrypted one must hash them three times (digest, HMAC,
// diffID): there the plain pull with just these parts added is the measure.
func (r report) decryption(encrypted, plain float64) (what string, seen, gate, goal float64, atLeast bool) {
	seen, what = encrypted/plain, "times the CPU time of the plain pull"
	if r.testCase.format == uncompressed {
		what = fmt.Sprintf("times the CPU time of the plain pull with HMAC, cipher and diffID; %.2f times that of the plain pull", seen)
		seen = encrypted / (plain + r.ceiling.decrypting)
	}
	return what, seen, gateDecrypt, gateDecrypt, false
}

// twin is the name of the case without encryption.
func (c testCase) twin() string {
	c.encrypted = false
	return c.name()
}

// header names the machine's part in the numbers.
func header(rounds, cores int) string {
	return strings.Join([]string{
		fmt.Sprintf("%d rounds, %d cores. CPU is that of all processes of a tool, others' that of the rest of the machine and", rounds, cores),
		"of our registry meanwhile: where that is much above the registry's, the machine was not quiet, and wall times say little.",
		"Free memory is touched before each pull, so that none pays for what the host of a virtual machine took back.",
	}, "\n")
}
