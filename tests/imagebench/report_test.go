package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pulled is a tool that only has a name.
type pulled struct {
	tool
	title string
	of    kind
}

func (p pulled) name() string { return p.title }
func (p pulled) kind() kind   { return p.of }
func (p pulled) isOurs() bool { return p.of == ours }

func ran(title string, of kind, wall ...time.Duration) *result {
	res := &result{tool: pulled{title: title, of: of}}
	for _, w := range wall {
		res.rounds = append(res.rounds, spent{wall: w, cpu: 2 * w, rss: 20e6})
	}
	return res
}

func TestGates(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name            string
		testCase        testCase
		peer, podman    time.Duration
		ceiling         float64
		says, complains string
	}{
		{"goal", testCase{format: gzipped}, 15 * s, 90 * s, 9, "goal    1.50 times as fast as containerd", ""},
		{"gate", testCase{format: gzipped}, 14 * s, 90 * s, 9, "ok      1.40 times as fast as containerd", ""},
		{"below", testCase{format: gzipped}, 12 * s, 90 * s, 9, "", "MISSED  1.20 times as fast as containerd"},
		{"another tool is the fastest", testCase{format: gzipped}, 15 * s, 11 * s, 9, "", "MISSED  1.10 times as fast as podman"},
		{"encrypted: what Debian ships", testCase{format: gzipped, encrypted: true}, 12 * s, 45 * s, 9, "goal    4.50 times as fast as podman", ""},
		{"far from the ceiling", testCase{format: gzipped}, 15 * s, 90 * s, 7, "", "MISSED  0.70 of the ceiling"},
		{"nobody to compare with", testCase{format: zstandard, encrypted: true}, 15 * s, 90 * s, 9, "unjudged", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := report{testCase: c.testCase, ceiling: ceiling{wall: c.ceiling}, results: []*result{
				ran("vouchsafe", ours, 10*s, 99*s, 1*s), ran("containerd", newest, c.peer), ran("podman", debian, c.podman), {tool: pulled{title: "wrong", of: debian}},
			}}
			var out strings.Builder
			missed := r.judge(&out, nil)
			if missed != (c.complains != "") || !strings.Contains(out.String(), c.says) || !strings.Contains(out.String(), c.complains) {
				t.Errorf("missed: %v\n%s", missed, out.String())
			}
		})
	}
}

// Decryption may cost a fifth; the setting for small guests has gates of its own.
func TestGatesBesideOthers(t *testing.T) {
	const s = time.Second
	r := report{testCase: testCase{format: gzipped, encrypted: true}, ceiling: ceiling{wall: 13}, results: []*result{
		ran("vouchsafe", ours, 13*s), ran("vouchsafe, small guest", ours, 15*s), ran("podman", debian, 90*s),
	}}
	plain := report{results: []*result{ran("vouchsafe", ours, 10*s)}}
	var out strings.Builder
	if !r.judge(&out, &plain) {
		t.Error("no gate was missed")
	}
	for _, want := range []string{"MISSED  1.30 times the CPU time", "MISSED  0.87 of the speed kept in the setting for small guests, in the median of 1 rounds; 1.15 times as long", "goal    20.00 MB at the most, small guest"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// What counts of the setting for small guests is what most rounds say, each by itself.
func TestGateOfSmallGuests(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		small  []time.Duration
		want   string
		missed bool
	}{
		{[]time.Duration{11 * s, 21 * s, 29 * s}, "goal    0.95 of the speed kept", false},
		{[]time.Duration{9 * s, 24 * s, 36 * s}, "MISSED  0.83 of the speed kept", true},
	} {
		r := report{testCase: testCase{format: gzipped}, ceiling: ceiling{wall: 20}, results: []*result{
			ran("vouchsafe", ours, 10*s, 20*s, 30*s), ran("vouchsafe, small guest", ours, c.small...), ran("podman", debian, 90*s),
		}}
		var out strings.Builder
		if missed := r.judge(&out, nil); missed != c.missed || !strings.Contains(out.String(), c.want) {
			t.Errorf("missed: %v\n%s", missed, out.String())
		}
	}
}

// Rounds of the pair alone count for that gate and for no other.
func TestMoreRoundsOfThePair(t *testing.T) {
	const s = time.Second
	r := report{testCase: testCase{format: gzipped}, ceiling: ceiling{wall: 20}, results: []*result{
		ran("vouchsafe", ours, 10*s), ran("vouchsafe, small guest", ours, 20*s), ran("containerd", newest, 15*s),
	}}
	r.more = pair{full: ran("vouchsafe", ours, 90*s, 95*s), small: ran("vouchsafe, small guest", ours, 90*s, 100*s)}
	if kept := r.kept(); len(kept) != 3 || kept[0] != 0.5 {
		t.Errorf("kept: %v", kept)
	}
	var out strings.Builder
	r.judge(&out, nil)
	for _, want := range []string{"1.50 times as fast as containerd", "0.95 of the speed kept in the setting for small guests, in the median of 3 rounds; 2.00 times as long by the medians of 1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// The pair is measured until its rounds agree, on whichever side of the gate.
func TestAgreed(t *testing.T) {
	for _, c := range []struct {
		seen []float64
		want bool
	}{
		{[]float64{0.95}, true},
		{[]float64{0.80}, true},
		{[]float64{0.95, 0.95, 0.95, 0.85, 0.85}, false},
		{[]float64{0.85, 0.85, 0.85, 0.95, 0.95}, false},
		{[]float64{0.95, 0.95, 0.90, 0.95, 0.85}, true},
		{[]float64{0.85, 0.85, 0.89, 0.85, 0.95}, true},
	} {
		if got := agreed(c.seen, 0.90); got != c.want {
			t.Errorf("%v agree: %v", c.seen, got)
		}
	}
}

// Without compression three hashes stand against one: those are not the fault
// of the pull, all else is.
func TestGateOfDecryptionAlone(t *testing.T) {
	const s = time.Second
	plain := report{results: []*result{ran("vouchsafe", ours, 10*s)}} // 20 s of CPU time
	for wall, want := range map[time.Duration]string{17 * s: "goal    1.13", 19 * s: "MISSED  1.27"} {
		r := report{testCase: testCase{format: uncompressed, encrypted: true}, ceiling: ceiling{wall: 19, decrypting: 10}, results: []*result{
			ran("vouchsafe", ours, wall), ran("podman", debian, 90*s),
		}}
		var out strings.Builder
		if missed := r.judge(&out, &plain); missed != strings.HasPrefix(want, "MISSED") || !strings.Contains(out.String(), want+" times the CPU time of the plain pull with") {
			t.Errorf("missed: %v\n%s", missed, out.String())
		}
	}
}

func TestStages(t *testing.T) {
	const line = "-----------+-------------------------------------------------------\n"
	traces := "File: imagepull\n" + line +
		"     1.50s   crypto/internal/fips140/sha256.blockSHANI\n             github.com/vouchsafe-cc/vouchsafe/image/registry.(*verifyReader).Read\n             github.com/vouchsafe-cc/vouchsafe/image/unpack.Apply\n" + line +
		"     300ms   crypto/internal/fips140/sha256.blockSHANI\n             github.com/vouchsafe-cc/vouchsafe/image/pull.(*Puller).unpackInto.(*diffIDCheck).see.func2\n             github.com/vouchsafe-cc/vouchsafe/image/pull.(*ahead).watch\n" + line +
		"      20ms   syscall.Syscall6\n             github.com/vouchsafe-cc/vouchsafe/image/unpack.(*unpacker).file\n" + line +
		"     480ms   syscall.Syscall\n             github.com/vouchsafe-cc/vouchsafe/image/unpack.(*unpacker).copy\n"
	if seen := summary(traces); seen != "digest 1.50, unpack 0.50, diffID 0.30" {
		t.Errorf("%q", seen)
	}
}

// A tree that is not as ours in one property of one inode is found.
func TestDifferences(t *testing.T) {
	dir := func() string {
		d := t.TempDir()
		for _, name := range []string{"a", "b"} {
			if err := os.WriteFile(filepath.Join(d, name), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(d, name), time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	read := func(d string) tree {
		seen, err := inventory(d)
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
	one, other := read(dir()), dir()
	if list, n := one.differences(read(other)); n != 0 || len(one) != 2 {
		t.Errorf("equal trees differ: %v", list)
	}
	for _, spoil := range []func(string) error{
		func(f string) error { return os.Chmod(f, 0o600) },
		func(f string) error { return os.Chtimes(f, time.Time{}, time.Unix(2, 0)) },
		func(f string) error { return os.WriteFile(f, []byte("c"), 0o644) },
		os.Remove,
	} {
		d := dir()
		if err := spoil(filepath.Join(d, "b")); err != nil {
			t.Fatal(err)
		}
		if _, n := one.differences(read(d)); n != 1 {
			t.Errorf("%d differences", n)
		}
	}
}

// Where connections are slow, ours is held against ours over one of them.
func TestGateOfSlowConnections(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		one    time.Duration
		says   string
		missed bool
	}{{36 * s, "goal    3.60 times as fast as one", false}, {26 * s, "ok      2.60 times", false}, {20 * s, "MISSED  2.00 times", true}} {
		r := report{testCase: testCase{format: gzipped, size: single, slow: true}, results: []*result{
			ran("vouchsafe", ours, 10*s), {tool: pulled{title: "one", of: oneConnection}, rounds: []spent{{wall: c.one, cpu: s}}},
		}}
		var out strings.Builder
		if missed := r.judge(&out, nil); missed != c.missed || !strings.Contains(out.String(), c.says) || strings.Contains(out.String(), "ceiling") {
			t.Errorf("missed: %v\n%s", missed, out.String())
		}
	}
}

func TestHopeless(t *testing.T) {
	const s = time.Second
	mine, fast, near, far := ran("vouchsafe", ours, 90*s), ran("fast", newest, 10*s), ran("near", debian, 12*s), ran("far", debian, 16*s)
	failed := &result{tool: pulled{title: "failed", of: debian}}
	all := []*result{mine, fast, near, far, failed}
	for _, c := range []struct {
		res     *result
		against kind
		want    bool
	}{
		{mine, anyPeer, false}, {fast, anyPeer, false}, {near, anyPeer, false}, {far, anyPeer, true}, {failed, anyPeer, false},
		{fast, debian, true}, {near, debian, false}, {far, debian, true},
	} {
		if got := c.res.hopeless(all, c.against); got != c.want {
			t.Errorf("%s is hopeless: %v", c.res.tool.name(), got)
		}
	}
}
