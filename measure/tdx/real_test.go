package tdx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// realTime lies in the life of all real PCK certificates here.
var realTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// realVerifier trusts Intel alone, and knows no collateral.
func realVerifier(t testing.TB, change ...func(*VerifierConfig)) *Verifier {
	t.Helper()
	c := VerifierConfig{Config: dcap.Config{UnsafeNoCollateral: true, Now: func() time.Time { return realTime }}}
	for _, f := range change {
		f(&c)
	}
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var unbound = measure.Expected{ReportData: measure.UnsafeUnbound("a recording"), InitData: measure.NotPresented()}

func wire(t testing.TB, e Evidence) measure.Evidence {
	t.Helper()
	ev, err := e.Wire()
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// TestRealDebugTD is evidence of real hardware that is genuine and worth
// nothing: its host may read the guest's memory.
func TestRealDebugTD(t *testing.T) {
	ev := wire(t, Evidence{Quote: evidencetest.File(t, "tdx", "tdx_quote_4.dat")})
	got, err := realVerifier(t).Verify(t.Context(), ev, unbound)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckAttributes: "this is a debug TD"})
	if got.Root != (measure.Root{Name: "Intel SGX Root CA"}) {
		t.Errorf("root %+v", got.Root)
	}
	got, err = realVerifier(t, func(c *VerifierConfig) { c.UnsafeDebug = true }).Verify(t.Context(), ev, unbound)
	if err != nil {
		t.Fatal(err)
	}

	// What the field's verifier says about this quote, but for the log: it was
	// given another machine's.
	var want map[string]any
	if err := json.Unmarshal(evidencetest.File(t, "tdx", "parse_tdx_claims_expected.json"), &want); err != nil {
		t.Fatal(err)
	}
	delete(want, eventlog.ClaimEvents)
	contains(t, "", got.Claims, want)
}

// contains fails the test unless the claims have everything that is wanted.
func contains(t *testing.T, path string, claims measure.Claims, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if inner, ok := value.(map[string]any); ok {
			nested, _ := claims[name].(measure.Claims)
			contains(t, path+name+".", nested, inner)
		} else if claims[name] != value {
			t.Errorf("%s%s is %v, want %v", path, name, claims[name], value)
		}
	}
}

// TestRealAzureTD is the quote of a paravisor: all its run-time registers are
// zero.
func TestRealAzureTD(t *testing.T) {
	got, err := realVerifier(t).Verify(t.Context(), wire(t, Evidence{Quote: evidencetest.File(t, "azure", "tdx", "td-quote.bin")}), unbound)
	if err != nil {
		t.Fatal(err)
	}
	body := got.Claims["quote"].(measure.Claims)["body"].(measure.Claims)
	if td, _ := body["mr_td"].(string); len(td) != 96 || td[:8] != "024a32b0" || got.Claims["fmspc"] != "00806f050000" {
		t.Errorf("mr_td %v, fmspc %v", body["mr_td"], got.Claims["fmspc"])
	}
	for n := range 4 {
		if v := body[fmt.Sprintf("rtmr_%d", n)]; v != hex.EncodeToString(make([]byte, 48)) {
			t.Errorf("rtmr_%d is %v", n, v)
		}
	}
}

// explained is a quote of real hardware with the log that leads to its
// registers.
func explained(t testing.TB) ([]byte, *eventlog.Log) {
	t.Helper()
	var report struct {
		Quote string `json:"quote"`
		Log   string `json:"event_log"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "dstack", "quote-report.json"), &report); err != nil {
		t.Fatal(err)
	}
	quote, err := hex.DecodeString(report.Quote)
	if err != nil {
		t.Fatal(err)
	}
	var events []struct {
		IMR     int
		Type    eventlog.EventType `json:"event_type"`
		Digest  string
		Payload string `json:"event_payload"`
	}
	if err := json.Unmarshal([]byte(report.Log), &events); err != nil {
		t.Fatal(err)
	}
	log := eventlog.NewCCEL()
	for _, e := range events {
		digest, err1 := hex.DecodeString(e.Digest)
		data, err2 := hex.DecodeString(e.Payload)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		log.Events = append(log.Events, eventlog.Event{
			Index: e.IMR + 1, Type: e.Type, Digests: map[eventlog.Algorithm][]byte{eventlog.SHA384: digest}, Data: data,
		})
	}
	return quote, log
}

// TestRealEventLog replays the log of real hardware into the registers of its
// quote, and no change of a digest passes.
func TestRealEventLog(t *testing.T) {
	quote, log := explained(t)
	v := realVerifier(t)
	got, err := v.Verify(t.Context(), wire(t, Evidence{Quote: quote, EventLog: log.Marshal()}), unbound)
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Check(measure.CheckEventLog); c.Outcome != measure.Passed {
		t.Errorf("%s: %s", c.Outcome, c.Reason)
	}
	for n := range log.Events {
		changed, err := eventlog.Parse(log.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		changed.Events[n].Digests[eventlog.SHA384][n] ^= 1
		_, err = v.Verify(t.Context(), wire(t, Evidence{Quote: quote, EventLog: changed.Marshal()}), unbound)
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckEventLog: "the event log does not lead to RTMR"})
	}
}

// TestNoMutationIsAccepted changes real evidence, a byte at a time, body and
// log alike. Package dcap does the same with every byte of the quotes.
func TestNoMutationIsAccepted(t *testing.T) {
	quote, log := explained(t)
	v := realVerifier(t)
	accepted := func(q, l []byte) bool {
		_, err := v.Verify(t.Context(), wire(t, Evidence{Quote: q, EventLog: l}), unbound)
		return err == nil
	}
	raw := log.Marshal()
	for at := 48; at < 48+584; at++ {
		q := bytes.Clone(quote)
		q[at] ^= 4
		if accepted(q, raw) {
			t.Fatalf("byte %d of the quote was changed, and nobody noticed", at)
		}
	}
	for at := range raw {
		l := bytes.Clone(raw)
		l[at] ^= 4
		if !accepted(quote, l) {
			continue
		}
		// The text of an event is not measured, but its digest and its place are.
		changed, err := eventlog.Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		for n, e := range changed.Events {
			if e.Index != log.Events[n].Index || !bytes.Equal(e.Digests[eventlog.SHA384], log.Events[n].Digests[eventlog.SHA384]) {
				t.Fatalf("byte %d of the log was changed, and with it what event %d extended, and nobody noticed", at, n)
			}
		}
	}
}
