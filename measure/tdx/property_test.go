package tdx

import (
	"bytes"
	"encoding/pem"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// productions are configurations that name no simulated root, or another one
// than the lab's, with every combination of what can be waived.
func productions(l *lab, stranger *lab) []VerifierConfig {
	var out []VerifierConfig
	for bits := range 1 << 6 {
		on := func(n int) bool { return bits>>n&1 != 0 }
		c := VerifierConfig{
			Config: dcap.Config{
				UnsafeNoCollateral: on(0), Accepted: dcap.Acceptable(), Now: func() time.Time { return l.now },
			},
			UnsafeDebug: on(1), UnsafeMigratable: on(2),
		}
		if on(3) {
			c.Source = l.source(dcap.Statement{})
		}
		if on(4) {
			c.Grace = 10 * 365 * 24 * time.Hour
		}
		if on(5) {
			c.UnsafeSimulatedRoots = []dcap.SimulatedRoot{{Name: "another", Bundle: stranger.vendor.Bundle()}}
		}
		out = append(out, c)
	}
	return out
}

// withRoot puts another certificate in the root's place in a quote's chain.
func withRoot(t *testing.T, quote, root []byte) []byte {
	t.Helper()
	q, err := dcap.ParseQuote(quote)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndex(q.Chain, []byte("-----BEGIN"))
	q.Chain = append(bytes.Clone(q.Chain[:last]), root...)
	return q.Marshal()
}

// TestNoSimulatedRootIsProduction holds evidence of a simulated vendor against
// every configuration that does not name it: none accepts it, and none says
// that its chain is good.
func TestNoSimulatedRootIsProduction(t *testing.T) {
	stranger := newLab(t)
	authorities, err := dcap.Authorities(nil)
	if err != nil {
		t.Fatal(err)
	}
	intel := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorities[0].Raw})
	for _, change := range []func(*Launch){
		func(*Launch) {},
		func(l *Launch) { l.TDX15 = true },
		func(l *Launch) { l.Attributes = DefaultAttributes | AttrDebug | AttrMigratable },
	} {
		l := newLab(t, change)
		plain := l.evidence()
		for _, e := range []*Evidence{
			plain,
			{Quote: withRoot(t, plain.Quote, intel), EventLog: plain.EventLog},
			{Quote: withRoot(t, plain.Quote, stranger.vendor.Bundle()), EventLog: plain.EventLog},
		} {
			// It is the root alone that is wrong with it.
			all := func(c *VerifierConfig) { c.UnsafeDebug, c.UnsafeMigratable = true, true }
			if _, err := l.verify(l.verifier(all), e, l.expected()); (err == nil) != (e == plain) {
				t.Fatalf("where the root is named: %v", err)
			}
			for _, c := range productions(l, stranger) {
				v, err := NewVerifier(c)
				if err != nil {
					t.Fatal(err)
				}
				got, err := l.verify(v, e, l.expected())
				if err == nil || got.Check(measure.CheckChain).Outcome != measure.Failed {
					t.Fatalf("accepted by a configuration that does not name its root: %+v", c)
				}
			}
		}
	}
}
