package cca

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// lab is a machine with one realm.
type lab struct {
	t       testing.TB
	machine *machine
	dir     string
	launch  Launch
	sim     *Simulator
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, dir: filepath.Join(t.TempDir(), "machine")}
	if err := CreateVendor(l.dir); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.machine, err = openMachine(l.dir); err != nil {
		t.Fatal(err)
	}
	l.launch = Launch{Image: []byte("an agent"), CommandLine: "agent serve", InitDataDigest: []byte("a digest of init-data, 48 bytes, filled up to 64.")}
	l.sim = l.guest(l.launch)
	return l
}

func (l *lab) guest(launch Launch) *Simulator {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), "realm")
	if err := CreateGuest(l.dir, dir, launch); err != nil {
		l.t.Fatal(err)
	}
	s, err := OpenSimulator(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) root() TrustStore {
	l.t.Helper()
	raw, err := os.ReadFile(filepath.Join(l.dir, fileStore))
	if err != nil {
		l.t.Fatal(err)
	}
	return TrustStore{Name: "lab", Anchors: raw}
}

// verifier trusts the lab's machine; change adapts the configuration.
func (l *lab) verifier(change ...func(*VerifierConfig)) *Verifier {
	l.t.Helper()
	c := VerifierConfig{UnsafeSimulatedRoots: []TrustStore{l.root()}}
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

// parts are the claims of both parts of a token before they are signed.
type parts struct {
	platform wirePlatform
	realm    wireRealm
}

// token signs a token of the lab's realm over the challenge. Each change is
// made to the claims before they are signed; the realm's key stays vouched
// for unless the change says otherwise.
func (l *lab) token(change ...func(*parts)) []byte {
	l.t.Helper()
	p := parts{platform: l.machine.platform, realm: l.sim.realm}
	secured := uint16(Secured) << 8
	p.platform.Lifecycle = &secured
	p.realm.Challenge = challenge[:]
	hash, err := sum(*p.realm.KeyHash, p.realm.PublicKey)
	if err != nil {
		l.t.Fatal(err)
	}
	p.platform.Challenge = hash
	for _, f := range change {
		f(&p)
	}
	platform, err := signPart(p.platform, l.machine.key)
	if err != nil {
		l.t.Fatal(err)
	}
	realm, err := signPart(p.realm, l.sim.key)
	if err != nil {
		l.t.Fatal(err)
	}
	token, err := join(tagCMW, platform, realm)
	if err != nil {
		l.t.Fatal(err)
	}
	return token
}

func (l *lab) verify(v *Verifier, token []byte, want measure.Expected) (measure.Verdict, error) {
	l.t.Helper()
	ev, err := Wire(token)
	if err != nil {
		l.t.Fatal(err)
	}
	return v.Verify(l.t.Context(), ev, want)
}
