package snp

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// vendorKeys makes the two RSA keys of all simulated vendors here, once: a key
// takes seconds. A vendor with the keys the other way round is another one.
var vendorKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 4096); err != nil {
			panic(err)
		}
	}
	return keys
})

// lab is a vendor with one guest, and the time at which all was made.
type lab struct {
	t         testing.TB
	now       time.Time
	vendor    *vendor
	vendorDir string
	launch    Launch
	sim       *Simulator
}

func newLab(t testing.TB, g Generation) *lab { return newLabWith(t, g, 0, 1) }

func newLabWith(t testing.TB, g Generation, ark, ask int) *lab {
	t.Helper()
	l := &lab{t: t, now: time.Now(), vendorDir: filepath.Join(t.TempDir(), "vendor")}
	var err error
	if l.vendor, err = newVendor(g, vendorKeys()[ark], vendorKeys()[ask], vendorKeys()[ask], l.now); err != nil {
		t.Fatal(err)
	}
	if err := l.vendor.write(l.vendorDir); err != nil {
		t.Fatal(err)
	}
	l.launch = Launch{Image: []byte("an agent"), CommandLine: "agent serve", InitDataDigest: []byte("a digest of init-data, 48 bytes, cut to 32 of it")}
	l.sim = l.guest(l.launch)
	return l
}

func (l *lab) guest(launch Launch) *Simulator {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), "guest")
	if err := CreateGuest(l.vendorDir, dir, launch); err != nil {
		l.t.Fatal(err)
	}
	s, err := OpenSimulator(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) root() SimulatedRoot { return SimulatedRoot{Name: "lab", Bundle: l.vendor.bundle()} }

// verifier trusts the lab's vendor; change adapts the configuration.
func (l *lab) verifier(change ...func(*VerifierConfig)) *Verifier {
	l.t.Helper()
	c := VerifierConfig{UnsafeSimulatedRoots: []SimulatedRoot{l.root()}, Now: func() time.Time { return l.now }}
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

// evidence returns evidence of the guest over the challenge. Each change is
// made to the report before it is signed.
func (l *lab) evidence(change ...func(*Report)) *Evidence {
	l.t.Helper()
	r := l.sim.report
	r.ReportData = challenge
	for _, f := range change {
		f(&r)
	}
	if err := r.signWith(l.sim.key); err != nil {
		l.t.Fatal(err)
	}
	return &Evidence{Report: &r, Certificates: append([]Certificate(nil), l.sim.chain...)}
}

func (l *lab) verify(v *Verifier, e *Evidence, want measure.Expected) (measure.Verdict, error) {
	l.t.Helper()
	wire, err := e.Wire()
	if err != nil {
		l.t.Fatal(err)
	}
	return v.Verify(context.Background(), wire, want)
}

// verificationError fails the test unless the error is that of a verification.
func verificationError(t *testing.T, err error) *measure.VerificationError {
	t.Helper()
	ve, ok := errors.AsType[*measure.VerificationError](err)
	if !ok {
		t.Fatalf("got %v, want a VerificationError", err)
	}
	return ve
}
