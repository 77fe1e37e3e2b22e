package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// labs are those of all platforms: nothing that a test does changes one, and
// some cost seconds to make.
var labs []*Lab

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vouchsafe-lab-")
	if err == nil {
		err = openAll(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil && code == 0 {
		code = 1
	}
	os.Exit(code)
}

func openAll(dir string) error {
	for _, p := range Platforms() {
		l, err := Open(p, filepath.Join(dir, string(p)))
		if err != nil {
			return err
		}
		labs = append(labs, l)
	}
	return nil
}

func forEach(t *testing.T, f func(t *testing.T, l *Lab)) {
	t.Helper()
	for _, l := range labs {
		t.Run(string(l.Platform), func(t *testing.T) { f(t, l) })
	}
}

// Honest evidence passes where the simulated root is named, and says of itself
// that it is simulated: the verdict, and the claims that policies read.
func TestTrusting(t *testing.T) {
	forEach(t, func(t *testing.T, l *Lab) {
		all, err := l.Verdicts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			if v.Platform != l.Platform || !v.Root.Simulated || v.Root.Name == "" {
				t.Errorf("%s, root %+v", v.Platform, v.Root)
			}
			if l.Production != nil && v.Claims["simulated_root"] != RootName {
				t.Errorf("claim simulated_root is %v", v.Claims["simulated_root"])
			}
			for _, c := range v.Checks {
				waived := c.Outcome == measure.Waived && l.Production != nil && (c.Name != measure.CheckRevocation || l.Platform != measure.NVIDIA)
				if c.Outcome == measure.Failed || waived {
					t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
				}
			}
			if _, err := json.Marshal(v.Claims); err != nil {
				t.Error(err)
			}
		}
		if want := map[bool]int{true: GPUs, false: 1}[l.Platform == measure.NVIDIA]; len(all) != want {
			t.Errorf("%d verdicts", len(all))
		}
	})
}

// No simulated root ever satisfies a production configuration, though this one
// waives whatever can be waived: not the evidence as it is, and not with any
// one change to what it is bound to. The refusal is about the root.
func TestNoSimulatedRootInProduction(t *testing.T) {
	forEach(t, func(t *testing.T, l *Lab) {
		if l.Production == nil {
			t.Skip("the platform is nothing but a simulation: no verifier of it is a production one")
		}
		ev, err := l.Evidence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		unbound := measure.UnsafeUnbound("test")
		for name, want := range map[string]measure.Expected{
			"bound": l.Expected(), "unbound": {ReportData: unbound, InitData: unbound},
			"no init-data": {ReportData: l.Expected().ReportData, InitData: measure.NotPresented()},
		} {
			all, err := measure.VerifyAll(t.Context(), l.Production, ev, want)
			failed, ok := errors.AsType[*measure.VerificationError](err)
			if !ok || !failed.UntrustedRoot() {
				t.Errorf("%s: the error is not about the root: %v", name, err)
			}
			for _, v := range all {
				if v.Err() == nil || v.Check(measure.CheckChain).Outcome != measure.Failed {
					t.Errorf("%s: %+v", name, v.Checks)
				}
				if v.Root != (measure.Root{}) {
					t.Errorf("%s: evidence that nobody vouches for has the root %+v", name, v.Root)
				}
			}
		}
	})
}

// Nor can the simulated root be configured as a genuine one by mistake.
func TestSimulatedRootIsNotTakenForGenuine(t *testing.T) {
	forEach(t, func(t *testing.T, l *Lab) {
		if l.Smuggle == nil {
			t.Skip("genuine roots of the platform are built in")
		}
		if _, err := l.Smuggle(); err == nil || !strings.Contains(err.Error(), "simulated") {
			t.Errorf("it is accepted as a root of hardware: %v", err)
		}
	})
}

// Evidence of one platform is nothing to the verifiers of all others.
func TestNoPlatformForAnother(t *testing.T) {
	var evidence []measure.Evidence
	for _, l := range labs {
		ev, err := l.Evidence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		evidence = append(evidence, ev)
	}
	for _, l := range labs {
		for _, ev := range evidence {
			if ev.Platform == l.Platform {
				continue
			}
			if _, err := measure.VerifyAll(t.Context(), l.Trusting, ev, l.Expected()); err == nil {
				t.Errorf("%s accepts evidence of %s", l.Platform, ev.Platform)
			}
			samples := []measure.Platform{measure.Sample, measure.SampleDevice}
			if slices.Contains(samples, l.Platform) && slices.Contains(samples, ev.Platform) {
				continue // they have one form
			}
			ev.Platform = l.Platform
			if _, err := measure.VerifyAll(t.Context(), l.Trusting, ev, l.Expected()); err == nil {
				t.Errorf("%s accepts evidence of another platform under its own name", l.Platform)
			}
		}
	}
}

func TestUnknownPlatform(t *testing.T) {
	if l, err := Open("abacus", t.TempDir()); err == nil {
		t.Errorf("%+v", l)
	}
}
