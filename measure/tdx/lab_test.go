package tdx

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// lab is a vendor with one TD, and the time at which all was made.
type lab struct {
	t      testing.TB
	now    time.Time
	vendor *dcap.Vendor
	launch Launch
	sim    *Simulator
}

func newLab(t testing.TB, change ...func(*Launch)) *lab {
	t.Helper()
	l := &lab{t: t, now: time.Now(), launch: Launch{
		Image: []byte("an agent"), CommandLine: "agent serve", InitDataDigest: []byte("a digest of init-data, which is 48 bytes long..."),
	}}
	for _, f := range change {
		f(&l.launch)
	}
	vendorDir, guestDir := filepath.Join(t.TempDir(), "vendor"), filepath.Join(t.TempDir(), "guest")
	if err := dcap.CreateVendor(vendorDir); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.vendor, err = dcap.OpenVendor(vendorDir); err != nil {
		t.Fatal(err)
	}
	if err := CreateGuest(vendorDir, guestDir, l.launch); err != nil {
		t.Fatal(err)
	}
	if l.sim, err = OpenSimulator(guestDir); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) root() dcap.SimulatedRoot {
	return dcap.SimulatedRoot{Name: "lab", Bundle: l.vendor.Bundle()}
}

// source answers with the collateral of a statement.
func (l *lab) source(s dcap.Statement) dcap.Source {
	l.t.Helper()
	c, err := l.vendor.Collateral(dcap.TDX, l.now, s)
	if err != nil {
		l.t.Fatal(err)
	}
	return fixed(c)
}

type fixed dcap.Collateral

func (f fixed) Collateral(context.Context, dcap.Request) (dcap.Collateral, error) {
	return dcap.Collateral(f), nil
}

// verifier trusts the lab's vendor; change adapts the configuration.
func (l *lab) verifier(change ...func(*VerifierConfig)) *Verifier {
	l.t.Helper()
	c := VerifierConfig{Config: dcap.Config{
		UnsafeSimulatedRoots: []dcap.SimulatedRoot{l.root()}, Now: func() time.Time { return l.now }, Source: l.source(dcap.Statement{}),
	}}
	for _, f := range change {
		f(&c)
	}
	v, err := NewVerifier(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

var challenge = measure.ReportData([]byte("sixty-four bytes of challenge, the digest of a nonce and a key.."))

func (l *lab) expected() measure.Expected {
	return measure.Expected{ReportData: measure.BoundTo(challenge[:]), InitData: measure.BoundTo(l.launch.InitDataDigest)}
}

// evidence returns evidence of the TD over the challenge. Each change is made
// to the report before it is signed.
func (l *lab) evidence(change ...func(*Report)) *Evidence {
	l.t.Helper()
	r := l.sim.report
	r.ReportData = challenge
	for _, f := range change {
		f(&r)
	}
	q, err := l.sim.quote(&r)
	if err != nil {
		l.t.Fatal(err)
	}
	return &Evidence{Quote: q, EventLog: append(l.sim.log.Marshal(), eventlog.EndMarker...)}
}

func (l *lab) verify(v *Verifier, e *Evidence, want measure.Expected) (measure.Verdict, error) {
	l.t.Helper()
	wire, err := e.Wire()
	if err != nil {
		l.t.Fatal(err)
	}
	return v.Verify(context.Background(), wire, want)
}
