package snp

import (
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// What a remembered chain spares must not spare anything that the report or
// the time decides.
func TestRememberedChain(t *testing.T) {
	l := newLab(t, Milan)
	now := l.now
	v := l.verifier(func(c *VerifierConfig) { c.Now = func() time.Time { return now } })
	good := l.evidence()
	if _, err := l.verify(v, good, l.expected()); err != nil {
		t.Fatal(err)
	}
	if len(v.chains.known) != 1 {
		t.Fatalf("%d chains are known", len(v.chains.known))
	}
	if _, err := l.verify(v, l.evidence(), l.expected()); err != nil {
		t.Errorf("the same chip again: %v", err)
	}

	forged := l.evidence()
	forged.Report.Measurement[0] ^= 1
	_, err := l.verify(v, forged, l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "did not sign"})

	_, err = l.verify(v, l.evidence(func(r *Report) { r.ReportedTCB[0] ^= 1 }), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "another TCB"})

	_, err = l.verify(v, l.evidence(func(r *Report) { r.ChipID[0] ^= 1 }), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "another chip"})

	_, err = l.verify(v, l.evidence(func(r *Report) { r.VMPL = 1 }), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckReport: "most privileged"})

	now = l.now.AddDate(100, 0, 0)
	_, err = l.verify(v, good, l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "not valid at this time", measure.CheckRevocation: "was to be renewed"})
}

// A chain that was refused leaves nothing behind, and a good one is good only
// for the processor that it was seen with.
func TestRefusedChainIsForgotten(t *testing.T) {
	l, stranger := newLab(t, Milan), newLabWith(t, Milan, 1, 0)
	v := l.verifier()
	if _, err := l.verify(v, stranger.evidence(), l.expected()); err == nil {
		t.Fatal("a stranger's evidence was accepted")
	}
	if len(v.chains.known) != 0 {
		t.Error("a refused chain is remembered")
	}
	if _, err := l.verify(v, l.evidence(), l.expected()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.verify(v, l.evidence(func(r *Report) { r.CPUModel = 0x11 }), l.expected()); err == nil {
		t.Error("the chain of a Milan was taken for that of a Genoa")
	}
}

func TestChainsAreBounded(t *testing.T) {
	var c chains
	for i := range 2 * maxChains {
		var k chainKey
		k.sum[0], k.sum[1] = byte(i), byte(i>>8)
		c.remember(k, chain{})
		c.remember(k, chain{})
	}
	if len(c.known) != maxChains || len(c.order) != maxChains {
		t.Errorf("%d chains, %d in order", len(c.known), len(c.order))
	}
	if _, ok := c.find(chainKey{}); ok {
		t.Error("the oldest is still there")
	}
}
