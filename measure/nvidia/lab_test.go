package nvidia

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// lab is an authority with a guest that has one GPU.
type lab struct {
	t      testing.TB
	now    time.Time
	vendor *vendor
	dir    string // of the vendor
	guest  string // directory of the guest
	sim    *Simulator
}

func newLab(t testing.TB, launch Launch) *lab {
	t.Helper()
	l := &lab{t: t, now: time.Now(), dir: filepath.Join(t.TempDir(), "vendor"), guest: filepath.Join(t.TempDir(), "guest")}
	if err := CreateVendor(l.dir); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.vendor, err = openVendor(l.dir); err != nil {
		t.Fatal(err)
	}
	if err := CreateGuest(l.dir, l.guest, launch); err != nil {
		t.Fatal(err)
	}
	if l.sim, err = OpenSimulator(l.guest); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) root() SimulatedRoot {
	return SimulatedRoot{Name: "lab", Certificate: pemOf(l.vendor.cert)}
}

// manifests are those that know the lab's GPUs.
func (l *lab) manifests() (out [][]byte) {
	l.t.Helper()
	for _, name := range []string{"driver.rim.json", "vbios.rim.json"} {
		raw, err := os.ReadFile(filepath.Join(l.guest, name))
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

// verifier trusts the lab's authority and knows its GPUs; change adapts the
// configuration. Nobody can ask about revocation.
func (l *lab) verifier(change ...func(*VerifierConfig)) *Verifier {
	l.t.Helper()
	c := VerifierConfig{
		UnsafeSimulatedRoots: []SimulatedRoot{l.root()}, Manifests: l.manifests(), Devices: []int{len(l.sim.gpus)},
		UnsafeNoRevocation: true, Now: func() time.Time { return l.now },
	}
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

func expected() measure.Expected {
	return measure.Expected{ReportData: measure.BoundTo(challenge[:]), InitData: measure.NotPresented()}
}

// device is the evidence of the first GPU. Each change is made to the report
// before it is signed.
func (l *lab) device(change ...func(*Report)) Device {
	l.t.Helper()
	r, err := l.sim.report(challenge)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	d := Device{Arch: l.sim.launch.Arch, UUID: "GPU-1", Certificate: l.sim.gpus[0].chain}
	if d.Report, err = r.sign(l.sim.gpus[0].key); err != nil {
		l.t.Fatal(err)
	}
	return d
}

// chain is that of the first GPU.
func (l *lab) chain() []*x509.Certificate {
	l.t.Helper()
	chain, err := parseChain(l.sim.gpus[0].chain)
	if err != nil {
		l.t.Fatal(err)
	}
	return chain
}

func verify(t testing.TB, v *Verifier, want measure.Expected, devices ...Device) (measure.Verdict, error) {
	t.Helper()
	ev, err := Wire(devices...)
	if err != nil {
		t.Fatal(err)
	}
	return v.Verify(t.Context(), ev, want)
}
