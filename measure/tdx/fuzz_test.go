package tdx

import (
	"bytes"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func FuzzParseReport(f *testing.F) {
	f.Add(make([]byte, 584))
	f.Add(make([]byte, 648))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseReport(raw)
		if err != nil {
			return
		}
		if got := r.Marshal(); !bytes.Equal(got, raw) {
			t.Fatalf("accepted %x, but it means %x", raw, got)
		}
	})
}

func FuzzParseEvidence(f *testing.F) {
	f.Add([]byte(`{"cc_eventlog":null,"quote":"BAACAA=="}`))
	f.Add([]byte(`{"cc_eventlog":"AQAAAA==","quote":"BQACAA=="}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := ParseEvidence(measure.Evidence{Platform: measure.TDX, Data: raw})
		if err != nil {
			return
		}
		again, err := ParseEvidence(wire(t, *e))
		if err != nil || !bytes.Equal(again.Quote, e.Quote) || !bytes.Equal(again.EventLog, e.EventLog) {
			t.Fatalf("accepted %q, and sent again it is %+v, %v", raw, again, err)
		}
		if _, err := e.Claims(); err != nil {
			return
		}
	})
}

// FuzzVerify gives a verifier that trusts Intel alone whatever a stranger can
// send: nothing passes.
func FuzzVerify(f *testing.F) {
	l := newLab(f)
	q, err := l.sim.quote(&l.sim.report)
	if err != nil {
		f.Fatal(err)
	}
	v := realVerifier(f)
	f.Add(uint16(48), uint8(1), []byte("a log"))
	f.Fuzz(func(t *testing.T, at uint16, bits uint8, log []byte) {
		changed := bytes.Clone(q)
		changed[int(at)%len(changed)] ^= bits
		if _, err := v.Verify(t.Context(), wire(t, Evidence{Quote: changed, EventLog: log}), unbound); err == nil {
			t.Fatal("a stranger's evidence passed")
		}
	})
}
