package dcap

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// lab is a vendor with one chip of each TEE, and what the vendor says.
type lab struct {
	t      testing.TB
	now    time.Time
	vendor *Vendor
	tee    TEE
	chip   *Chip
	source fixed
}

func newLab(t testing.TB, tee TEE, o ChipOptions) *lab {
	t.Helper()
	l := &lab{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), tee: tee}
	var err error
	if l.vendor, err = NewVendor(l.now); err != nil {
		t.Fatal(err)
	}
	l.chip = l.newChip(o)
	l.state(Statement{})
	return l
}

func (l *lab) newChip(o ChipOptions) *Chip {
	l.t.Helper()
	c, err := l.vendor.NewChip(l.tee, l.now, o)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// state makes the vendor's collateral anew.
func (l *lab) state(s Statement) {
	l.t.Helper()
	c, err := l.vendor.Collateral(l.tee, l.now, s)
	if err != nil {
		l.t.Fatal(err)
	}
	l.source = fixed{c: c}
}

// fixed is a source of one collateral, or of an error.
type fixed struct {
	c   Collateral
	err error
}

func (f fixed) Collateral(context.Context, Request) (Collateral, error) { return f.c, f.err }

func (l *lab) root() SimulatedRoot { return SimulatedRoot{Name: "lab", Bundle: l.vendor.Bundle()} }

func (l *lab) judge(change ...func(*Config)) *Judge {
	l.t.Helper()
	c := Config{TEE: l.tee, Source: l.source, UnsafeSimulatedRoots: []SimulatedRoot{l.root()}, Now: func() time.Time { return l.now }}
	for _, f := range change {
		f(&c)
	}
	j, err := NewJudge(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return j
}

// quote signs a body of zeros, and module is what it says of its module.
func (l *lab) quote() *Quote {
	l.t.Helper()
	version, kind, size := uint16(4), BodyTD10, tdReport10
	if l.tee == SGX {
		version, kind, size = 3, BodySGX, EnclaveReportSize
	}
	q, err := l.chip.Quote(version, kind, make([]byte, size))
	if err != nil {
		l.t.Fatal(err)
	}
	return q
}

func (l *lab) module() *Module {
	if l.tee == SGX {
		return nil
	}
	m := SimulatedModule()
	return &m
}

// opinion judges a fresh quote.
func (l *lab) opinion(change ...func(*Config)) Opinion {
	l.t.Helper()
	return l.judge(change...).Judge(context.Background(), l.quote(), l.module())
}

// wantFailures fails the test unless exactly these checks failed, each with
// the text in its reason.
func wantFailures(t testing.TB, o Opinion, want map[measure.CheckName]string) {
	t.Helper()
	failed := map[measure.CheckName]bool{}
	if ve, ok := errors.AsType[*measure.VerificationError](measure.Verdict{Checks: o.Checks}.Err()); ok {
		for _, c := range ve.Failed {
			failed[c.Name] = true
			text, expected := want[c.Name]
			if !expected {
				t.Errorf("%s failed too: %s", c.Name, c.Reason)
			} else if !strings.Contains(c.Reason, text) {
				t.Errorf("%s failed because %q, want %q in it", c.Name, c.Reason, text)
			}
		}
	}
	for name := range want {
		if !failed[name] {
			t.Errorf("%s did not fail", name)
		}
	}
}

func check(t testing.TB, o Opinion, name measure.CheckName) measure.Check {
	t.Helper()
	return measure.Verdict{Checks: o.Checks}.Check(name)
}
