package snp

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// shelf is a source that has what a test puts there, and counts who asks.
type shelf struct {
	list, chain, vcek []byte
	err               error
	asked             int
	chip              []byte
	tcb               TCB
}

func (s *shelf) give(b []byte) ([]byte, error) {
	s.asked++
	switch {
	case s.err != nil:
		return nil, s.err
	case b == nil:
		return nil, errors.New("there is none")
	}
	return b, nil
}

func (s *shelf) RevocationList(context.Context, Generation, SigningKey) ([]byte, error) {
	return s.give(s.list)
}
func (s *shelf) Chain(context.Context, Generation, SigningKey) ([]byte, error) {
	return s.give(s.chain)
}
func (s *shelf) VCEK(_ context.Context, _ Generation, chip []byte, tcb TCB) ([]byte, error) {
	s.chip, s.tcb = chip, tcb
	return s.give(s.vcek)
}

func withoutList(c *VerifierConfig) {
	bundle, _, _ := bytes.Cut(c.UnsafeSimulatedRoots[0].Bundle, []byte("-----BEGIN X509 CRL"))
	c.UnsafeSimulatedRoots[0].Bundle = bundle
}

func TestListFromSource(t *testing.T) {
	l, other := newLab(t, Genoa), newLabWith(t, Genoa, 1, 0)
	revoked, stale := *l.vendor, *l.vendor
	if err := revoked.revoke(l.now, l.vendor.ask); err != nil {
		t.Fatal(err)
	}
	if err := stale.revoke(l.now.Add(-vendorLife - time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		source     shelf
		configured bool
		grace      time.Duration
		want       measure.Outcome
		reason     string
	}{
		{"from the source", shelf{list: l.vendor.crl.Raw}, false, 0, measure.Passed, ""},
		{"nowhere", shelf{}, false, 0, measure.Failed, "no revocation list of lab is at hand: there is none"},
		{"configured alone", shelf{}, true, 0, measure.Passed, ""},
		{"revoked in the source's", shelf{list: revoked.crl.Raw}, true, 0, measure.Failed, "is revoked"},
		{"of another vendor", shelf{list: other.vendor.crl.Raw}, false, 0, measure.Failed, "not signed by the root"},
		{"of another vendor, beside the configured", shelf{list: other.vendor.crl.Raw}, true, 0, measure.Passed, ""},
		{"garbage", shelf{list: []byte("x")}, false, 0, measure.Failed, "no revocation list of lab is at hand"},
		{"stale", shelf{list: stale.crl.Raw}, false, 0, measure.Failed, "to be renewed"},
		{"stale beside a configured one", shelf{list: stale.crl.Raw}, true, 0, measure.Passed, ""},
		{"stale within grace", shelf{list: stale.crl.Raw}, false, time.Hour, measure.Passed, "within the grace"},
		{"stale beyond grace", shelf{list: stale.crl.Raw}, false, time.Second, measure.Failed, "to be renewed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := l.verifier(func(cfg *VerifierConfig) {
				cfg.Source, cfg.Grace = &c.source, c.grace
				if !c.configured {
					withoutList(cfg)
				}
			})
			got, err := l.verify(v, l.evidence(), l.expected())
			check := got.Check(measure.CheckRevocation)
			if check.Outcome != c.want || !bytes.Contains([]byte(check.Reason), []byte(c.reason)) || (err != nil) != (c.want == measure.Failed) {
				t.Errorf("%s: %q, %v", check.Outcome, check.Reason, err)
			}
		})
	}
}

// Evidence without certificates, as hosts without a certificate table give it.
func TestLeafFromSource(t *testing.T) {
	for _, g := range Generations() {
		t.Run(string(g), func(t *testing.T) {
			l := newLab(t, g)
			source := &shelf{vcek: l.sim.chain[0].Data}
			v := l.verifier(func(c *VerifierConfig) { c.Source = source })
			bare := func(change ...func(*Report)) *Evidence {
				e := l.evidence(change...)
				e.Certificates = nil
				return e
			}
			for range 2 {
				if _, err := l.verify(v, bare(), l.expected()); err != nil {
					t.Fatal(err)
				}
			}
			if want := g.HardwareID(l.sim.report.ChipID); !bytes.Equal(source.chip, want) || source.tcb != l.sim.report.ReportedTCB {
				t.Errorf("asked for chip %x at %x", source.chip, source.tcb)
			}
			if len(v.chains.known) != 1 {
				t.Errorf("%d chains are known", len(v.chains.known))
			}
			// Another chip's certificate does not become this one's by being known.
			second := l.guest(l.launch)
			source.vcek = second.chain[0].Data
			_, err := l.verify(v, bare(), l.expected())
			verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "did not sign", measure.CheckTCB: "another chip"})
			source.err = errors.New("gone for lunch")
			_, err = l.verify(v, bare(), l.expected())
			verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "gone for lunch", measure.CheckChain: "gone for lunch",
				measure.CheckTCB: "gone for lunch", measure.CheckRevocation: "without"})
			before := source.asked
			_, err = l.verify(v, bare(func(r *Report) { r.ChipID, r.KeyInfo = [64]byte{}, 2 }), l.expected())
			verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "no VCEK", measure.CheckChain: "no VCEK",
				measure.CheckTCB: "no VCEK", measure.CheckRevocation: "without"})
			if source.asked != before {
				t.Error("the source was asked for a chip that hides")
			}
		})
	}
}

// A vendor may replace its signing key under the same root.
func TestSignerFromSource(t *testing.T) {
	l := newLab(t, Genoa)
	renewed := *l.vendor
	renewed.askKey = vendorKeys()[0] // any other key
	var err error
	if renewed.ask, err = issue(renewed.authority(signerName(VCEK, Genoa), 7, "renewed", l.now), l.vendor.ark, renewed.askKey.Public(), l.vendor.arkKey); err != nil {
		t.Fatal(err)
	}
	_, _, svns := Genoa.processor()
	key, cert, err := renewed.issueVCEK(l.sim.report.ChipID[:], svns, l.now)
	if err != nil {
		t.Fatal(err)
	}
	l.sim.key = key
	l.sim.chain = []Certificate{{Type: CertVCEK, Data: cert.Raw}}
	_, err = l.verify(l.verifier(), l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "not end in a trusted root", measure.CheckRevocation: "without"})

	source := &shelf{chain: append(encodeCertificate(renewed.ask), encodeCertificate(l.vendor.ark)...), list: l.vendor.crl.Raw}
	v := l.verifier(func(c *VerifierConfig) { c.Source = source })
	for range 2 {
		if _, err := l.verify(v, l.evidence(), l.expected()); err != nil {
			t.Fatal(err)
		}
	}
	if err := renewed.revoke(l.now, renewed.ask); err != nil {
		t.Fatal(err)
	}
	source.list = renewed.crl.Raw
	_, err = l.verify(v, l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckRevocation: "is revoked"})

	// One that a stranger signed is none.
	stranger := newLabWith(t, Genoa, 1, 0)
	forged, err := issue(renewed.authority(signerName(VCEK, Genoa), 7, "renewed", l.now), stranger.vendor.ark, renewed.askKey.Public(), stranger.vendor.arkKey)
	if err != nil {
		t.Fatal(err)
	}
	source.chain = encodeCertificate(forged)
	_, err = l.verify(l.verifier(func(c *VerifierConfig) { c.Source = source }), l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "not end in a trusted root", measure.CheckRevocation: "without"})
}

func TestAuthorities(t *testing.T) {
	l := newLab(t, Genoa)
	genuine, err := Authorities(nil)
	if err != nil || len(genuine) != 9 {
		t.Fatalf("%d certificates, %v", len(genuine), err)
	}
	all, err := Authorities([]SimulatedRoot{l.root()})
	if err != nil || len(all) != 12 {
		t.Fatalf("%d certificates, %v", len(all), err)
	}
}
