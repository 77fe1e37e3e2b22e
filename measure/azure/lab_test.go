package azure

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

var (
	challenge = []byte("the digest of a nonce and of a key: 48 bytes ...")
	document  = eventlog.SHA256.Sum([]byte("init-data"))
	launch    = tpm.Launch{Image: []byte("agent"), CommandLine: "quiet ä", InitDataDigest: document}
	platforms = []measure.Platform{measure.AzSNPvTPM, measure.AzTDXvTPM}
)

// scratch is where the vendors and guests of all tests live: AMD's keys take
// seconds.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "azure-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

var makeGuest = map[measure.Platform]func() error{
	measure.AzSNPvTPM: sync.OnceValue(func() error {
		return guestOf(measure.AzSNPvTPM, func(dir string) error { return snp.CreateVendor(dir, "Milan") })
	}),
	measure.AzTDXvTPM: sync.OnceValue(func() error { return guestOf(measure.AzTDXvTPM, dcap.CreateVendor) }),
}

func guestOf(p measure.Platform, vendor func(dir string) error) error {
	dir := filepath.Join(scratch, string(p))
	if err := vendor(dir); err != nil {
		return err
	}
	return CreateGuest(p, dir, dir+"-guest", launch)
}

// anotherKey is one that no hardware vouches for.
var anotherKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// lab is a guest that has just booted, under a vendor.
type lab struct {
	t      testing.TB
	vendor string
	sim    *Simulator
	now    time.Time
}

func newLab(t testing.TB, p measure.Platform) *lab {
	t.Helper()
	l := &lab{t: t, vendor: filepath.Join(scratch, string(p)), now: time.Now()}
	l.must(makeGuest[p]())
	var err error
	l.sim, err = OpenSimulator(l.vendor + "-guest")
	l.must(err)
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// evidence returns fresh evidence that is good.
func (l *lab) evidence() *Evidence {
	l.t.Helper()
	ev, err := measure.EvidenceOver(context.Background(), l.sim, challenge)
	l.must(err)
	e, err := ParseEvidence(ev)
	l.must(err)
	return e
}

// runtime replaces the runtime data by others that the hardware vouches for,
// if signed is set.
func (l *lab) runtime(e *Evidence, data []byte, signed bool) {
	l.t.Helper()
	if signed {
		l.must(l.sim.report(context.Background(), e, data))
	} else {
		e.HCL.RuntimeData = data
	}
}

// requote replaces the quote.
func (l *lab) requote(e *Evidence, extra []byte, selection ...tpm.Selection) {
	l.t.Helper()
	l.must(l.sim.quote(e, extra, selection...))
}

func (l *lab) root() []byte {
	l.t.Helper()
	raw, err := os.ReadFile(filepath.Join(l.vendor, "root.pem"))
	l.must(err)
	return raw
}

// snpConfig and tdxConfig trust the lab's vendor.
func (l *lab) snpConfig() snp.VerifierConfig {
	return snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: "lab", Bundle: l.root()}}, Now: func() time.Time { return l.now }}
}

func (l *lab) tdxConfig() tdx.VerifierConfig {
	l.t.Helper()
	v, err := dcap.OpenVendor(l.vendor)
	l.must(err)
	now := func() time.Time { return l.now }
	return tdx.VerifierConfig{Config: dcap.Config{
		UnsafeSimulatedRoots: []dcap.SimulatedRoot{{Name: "lab", Bundle: l.root()}}, Source: dcap.Service{Vendor: v, Now: now}, Now: now,
	}}
}

// verifier trusts the lab's vendor, if trusting is set, and nobody otherwise
// but the real ones.
func (l *lab) verifier(trusting bool) *Verifier {
	l.t.Helper()
	var hardware measure.Verifier
	var err error
	if l.sim.Platform() == measure.AzSNPvTPM {
		c := l.snpConfig()
		if !trusting {
			c.UnsafeSimulatedRoots = nil
		}
		hardware, err = snp.NewVerifier(c)
	} else {
		c := l.tdxConfig()
		if !trusting {
			c.UnsafeSimulatedRoots = nil
		}
		hardware, err = tdx.NewVerifier(c)
	}
	l.must(err)
	v, err := NewVerifier(hardware)
	l.must(err)
	return v
}

func expected() measure.Expected {
	return measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(document)}
}

func (l *lab) wire(e *Evidence) measure.Evidence {
	l.t.Helper()
	ev, err := e.Wire()
	l.must(err)
	return ev
}

// verify judges by a verifier that has seen nothing, and holds against it what
// one says that remembers the machine from good evidence.
func (l *lab) verify(e *Evidence, want measure.Expected) (measure.Verdict, error) {
	l.t.Helper()
	ev, fresh, warm := l.wire(e), l.verifier(true), l.verifier(true)
	got, refused := fresh.Verify(context.Background(), ev, want)
	if n := fresh.machines.Len(); refused != nil && n != 0 {
		l.t.Errorf("%d machines are remembered by refused evidence", n)
	}
	if _, err := warm.Verify(context.Background(), l.wire(l.evidence()), expected()); err == nil && warm.machines.Len() != 1 {
		l.t.Error("good evidence is not remembered")
	}
	for range 2 {
		again, err := warm.Verify(context.Background(), ev, want)
		if !reflect.DeepEqual(got, again) || fmt.Sprint(err) != fmt.Sprint(refused) {
			l.t.Errorf("who remembers the machine says %v and %+v, not %v and %+v", err, again, refused, got)
		}
	}
	return got, refused
}

// octets spells bytes as version 0 does.
func octets(b []byte) []int {
	out := make([]int, len(b))
	for i, v := range b {
		out[i] = int(v)
	}
	return out
}

func each(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	for _, p := range platforms {
		t.Run(fmt.Sprint(p), func(t *testing.T) { f(t, newLab(t, p)) })
	}
}
