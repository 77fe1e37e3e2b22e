package tdx

import (
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// TestRefused changes what a TD's report says before it is signed, and the log
// that goes with it.
func TestRefused(t *testing.T) {
	const attributes, binding, initData, log, tcb = CheckAttributes, measure.CheckBinding, measure.CheckInitData, measure.CheckEventLog, measure.CheckTCB
	for name, test := range map[string]struct {
		report func(*Report)
		log    func(*eventlog.Log)
		raw    func([]byte) []byte // of the log
		want   map[measure.CheckName]string
	}{
		"debug": {
			report: func(r *Report) { r.Attributes |= AttrDebug },
			want:   map[measure.CheckName]string{attributes: "this is a debug TD"},
		},
		"another of the bits that cost trust": {
			report: func(r *Report) { r.Attributes |= 1 << 5 },
			want:   map[measure.CheckName]string{attributes: "this is a debug TD"},
		},
		"migratable": {
			report: func(r *Report) { r.Attributes |= AttrMigratable },
			want:   map[measure.CheckName]string{attributes: "may be migrated"},
		},
		"debug and migratable": {
			report: func(r *Report) { r.Attributes |= AttrDebug | AttrMigratable },
			want:   map[measure.CheckName]string{attributes: "this is a debug TD: its host may read and write its memory; this TD may be migrated"},
		},
		"another challenge": {
			report: func(r *Report) { r.ReportData[63] ^= 1 },
			want:   map[measure.CheckName]string{binding: "not bound to this challenge"},
		},
		"other init-data": {
			report: func(r *Report) { r.MRConfigID[0] ^= 1 },
			want:   map[measure.CheckName]string{initData: "not bound to this init-data"},
		},
		"a register that the log does not explain": {
			report: func(r *Report) { r.RTMR[3][0] ^= 1 },
			want:   map[measure.CheckName]string{log: "the event log does not lead to RTMR3"},
		},
		"all registers": {
			report: func(r *Report) {
				for n := range r.RTMR {
					r.RTMR[n][n] ^= 1
				}
			},
			want: map[measure.CheckName]string{log: "RTMR0; the event log does not lead to RTMR1; the event log does not lead to RTMR2; the event log does not lead to RTMR3"},
		},
		"a log with another digest": {
			log:  func(l *eventlog.Log) { l.Events[1].Digests[eventlog.SHA384][0] ^= 1 },
			want: map[measure.CheckName]string{log: "the event log does not lead to RTMR1"},
		},
		"a log that leaves something out": {
			log:  func(l *eventlog.Log) { l.Events = l.Events[1:] },
			want: map[measure.CheckName]string{log: "the event log does not lead to RTMR0"},
		},
		"a log that adds something": {
			log:  func(l *eventlog.Log) { l.Add(4, eventlog.Separator, []byte("x"), []byte("x")) },
			want: map[measure.CheckName]string{log: "the event log does not lead to RTMR3"},
		},
		"a log of a register that no TD has": {
			log:  func(l *eventlog.Log) { l.Add(5, eventlog.Separator, []byte("x"), []byte("x")) },
			want: map[measure.CheckName]string{log: "the event log extends register 5"},
		},
		"a log of MRTD": {
			log:  func(l *eventlog.Log) { l.Add(0, eventlog.Separator, []byte("x"), []byte("x")) },
			want: map[measure.CheckName]string{log: "the event log extends register 0"},
		},
		"a log that is none":  {raw: func([]byte) []byte { return []byte("a log") }, want: map[measure.CheckName]string{log: ""}},
		"a log that is cut":   {raw: func(b []byte) []byte { return b[:len(b)-20] }, want: map[measure.CheckName]string{log: ""}},
		"a log that is empty": {raw: func([]byte) []byte { return []byte{} }, want: map[measure.CheckName]string{log: ""}},
		"a TDX module of another maker": {
			report: func(r *Report) { r.MRSignerSEAM[0] = 1 },
			want:   map[measure.CheckName]string{tcb: "the TDX module is signed by 01"},
		},
		"a TDX module with other attributes": {
			report: func(r *Report) { r.SEAMAttributes[7] = 1 },
			want:   map[measure.CheckName]string{tcb: "the TDX module has the attributes"},
		},
		"an old TDX module": {
			report: func(r *Report) { r.TEETCBSVN[0] = 3 },
			want:   map[measure.CheckName]string{tcb: "the TCB is OutOfDate"},
		},
		"everything at once": {
			report: func(r *Report) {
				*r = Report{Attributes: AttrDebug, TEETCBSVN: r.TEETCBSVN, MRSignerSEAM: Register{9}}
			},
			want: map[measure.CheckName]string{attributes: "debug", binding: "", initData: "", log: "RTMR0", tcb: "signed by 09"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if test.report == nil {
				test.report = func(*Report) {}
			}
			e := l.evidence(test.report)
			if test.log != nil {
				changed, err := eventlog.Parse(e.EventLog)
				if err != nil {
					t.Fatal(err)
				}
				test.log(changed)
				e.EventLog = changed.Marshal()
			}
			if test.raw != nil {
				e.EventLog = test.raw(e.EventLog)
			}
			got, err := l.verify(l.verifier(), e, l.expected())
			verdicttest.WantFailures(t, err, test.want)
			if got.Claims["report_data"] == nil || len(got.Checks) != 8 {
				t.Errorf("the verdict does not tell all that was seen: %+v", got)
			}
		})
	}
}

// TestQuoteRefused is about what dcap finds: it reaches the verdict.
func TestQuoteRefused(t *testing.T) {
	l := newLab(t)
	e := l.evidence()
	e.Quote[48+136] ^= 1 // MRTD
	_, err := l.verify(l.verifier(), e, l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "the attestation key did not sign this quote"})

	_, err = l.verify(l.verifier(func(c *VerifierConfig) { c.UnsafeSimulatedRoots = nil }), l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "trusted root", measure.CheckRevocation: "", measure.CheckTCB: ""})
	if ve, ok := errors.AsType[*measure.VerificationError](err); !ok || !ve.UntrustedRoot() {
		t.Errorf("%v does not say that the root is not trusted", err)
	}
}

// TestZeroConfigRefuses: nobody configured anything.
func TestZeroConfigRefuses(t *testing.T) {
	v, err := NewVerifier(VerifierConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	_, err = l.verify(v, l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "", measure.CheckRevocation: "", measure.CheckTCB: ""})
	if _, err := l.verify(l.verifier(), l.evidence(), measure.Expected{}); !errors.Is(err, measure.ErrUnset) {
		t.Errorf("nothing was demanded: %v", err)
	}
	_, err = l.verify(l.verifier(), l.evidence(), measure.Expected{ReportData: measure.NotPresented(), InitData: measure.NotPresented()})
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckBinding: "nothing was given"})
}

func TestWaivers(t *testing.T) {
	l := newLab(t, func(l *Launch) { l.Attributes = DefaultAttributes | AttrDebug | AttrMigratable })
	got, err := l.verify(l.verifier(func(c *VerifierConfig) { c.UnsafeDebug, c.UnsafeMigratable = true, true }), l.evidence(), l.expected())
	if err != nil {
		t.Fatal(err)
	}
	c := got.Check(CheckAttributes)
	if c.Outcome != measure.Waived || !strings.Contains(c.Reason, "UnsafeDebug") || !strings.Contains(c.Reason, "UnsafeMigratable") {
		t.Errorf("attributes is %s: %s", c.Outcome, c.Reason)
	}
	// one waiver does not waive the other
	_, err = l.verify(l.verifier(func(c *VerifierConfig) { c.UnsafeDebug = true }), l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckAttributes: "may be migrated"})
	_, err = l.verify(l.verifier(func(c *VerifierConfig) { c.UnsafeMigratable = true }), l.evidence(), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckAttributes: "this is a debug TD"})
}

func TestWithoutEventLog(t *testing.T) {
	l := newLab(t)
	e := l.evidence()
	e.EventLog = nil
	got, err := l.verify(l.verifier(), e, l.expected())
	if err != nil || got.Check(measure.CheckEventLog).Outcome != measure.NotApplicable {
		t.Fatalf("%+v, %v", got.Check(measure.CheckEventLog), err)
	}
	if _, there := got.Claims[eventlog.ClaimEvents]; there {
		t.Error("there are events without a log")
	}
}

// TestOldAgents is about evidence with a log of text beside the other: it is
// no claim, and what was extended with it is not explained.
func TestOldAgents(t *testing.T) {
	l := newLab(t)
	send := func(e *Evidence) (measure.Verdict, error) {
		ev := wire(t, *e)
		ev.Data = append([]byte(`{"aa_eventlog":"example.com pull image",`), ev.Data[1:]...)
		return l.verifier().Verify(t.Context(), ev, l.expected())
	}
	got, err := send(l.evidence())
	if err != nil {
		t.Fatal(err)
	}
	if events := got.Claims[eventlog.ClaimEvents].([]any); len(events) != 3 {
		t.Errorf("events %v", events)
	}
	_, err = send(l.evidence(func(r *Report) { r.RTMR[3] = Register{1} }))
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckEventLog: "the event log does not lead to RTMR3"})
}

// TestRuntimeEvents extends registers while the TD runs: the log explains
// them, and claims tell what was said.
func TestRuntimeEvents(t *testing.T) {
	l := newLab(t, func(l *Launch) { l.TDX15 = true })
	if err := l.sim.Extend(17, eventlog.RuntimeEvent{Domain: "example.com", Operation: "pull", Content: `{"image":"a"}`}); err != nil {
		t.Fatal(err)
	}
	ev, err := l.sim.Evidence(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.verifier().Verify(t.Context(), ev, l.expected())
	if err != nil {
		t.Fatal(err)
	}
	events, ok := got.Claims[eventlog.ClaimEvents].([]any)
	if !ok || len(events) != 4 {
		t.Fatalf("events %v", got.Claims[eventlog.ClaimEvents])
	}
	last := events[3].(measure.Claims)
	details := last["details"].(measure.Claims)
	data := details["data"].(measure.Claims)
	if details["unicode_name"] != "AAEL" || data["domain"] != "example.com" || data["operation"] != "pull" {
		t.Errorf("the last event is %v", last)
	}
	body := got.Claims["quote"].(measure.Claims)["body"].(measure.Claims)
	if body["rtmr_3"] == strings.Repeat("0", 96) {
		t.Error("RTMR3 was not extended")
	}
}

// A large log is listed for those whose evidence is good otherwise alone.
func TestLargeEventLog(t *testing.T) {
	l := newLab(t, func(l *Launch) { l.TDX15 = true })
	if err := l.sim.Extend(17, eventlog.RuntimeEvent{Domain: "d", Operation: "o", Content: strings.Repeat("a", eventlog.MaxUnproven)}); err != nil {
		t.Fatal(err)
	}
	ev, err := l.sim.Evidence(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.verifier().Verify(t.Context(), ev, l.expected())
	if events, ok := got.Claims[eventlog.ClaimEvents].([]any); err != nil || !ok || len(events) != 4 {
		t.Errorf("%d events and %v, want 4", len(events), err)
	}
	want := l.expected()
	want.ReportData = measure.BoundTo([]byte("another challenge"))
	got, err = l.verifier().Verify(t.Context(), ev, want)
	if _, listed := got.Claims[eventlog.ClaimEvents]; err == nil || listed {
		t.Errorf("refused with %v, and events listed: %t", err, listed)
	}
	if c := got.Check(measure.CheckEventLog); c.Outcome != measure.Passed {
		t.Errorf("the log that was not listed is %s: %s", c.Outcome, c.Reason)
	}
}

func TestParseEvidenceRefuses(t *testing.T) {
	l := newLab(t)
	wire, err := l.evidence().Wire()
	if err != nil {
		t.Fatal(err)
	}
	for want, ev := range map[string]measure.Evidence{
		`evidence of platform "sgx"`: {Platform: measure.SGX, Data: wire.Data},
		"quote: missing":             {Platform: measure.TDX, Data: []byte(`{"cc_eventlog":null}`)},
		"quote: not base64":          {Platform: measure.TDX, Data: []byte(`{"quote":"%"}`)},
		"quote: not a string":        {Platform: measure.TDX, Data: []byte(`{"quote":[1]}`)},
		"cc_eventlog: not base64":    {Platform: measure.TDX, Data: []byte(`{"quote":"AAAA","cc_eventlog":"!"}`)},
		"quote: longer than":         {Platform: measure.TDX, Data: []byte(`{"quote":"` + strings.Repeat("A", 100000) + `"}`)},
		"quote: header":              {Platform: measure.TDX, Data: []byte(`{"quote":"AAAA"}`)},
		"TDX evidence: ":             {Platform: measure.TDX, Data: []byte(`[]`)},
		`"quote"`:                    {Platform: measure.TDX, Data: []byte(`{"quote":"AAAA","quote":"AAAA"}`)},
		"at most ":                   {Platform: measure.TDX, Data: []byte(strings.Repeat(" ", MaxEvidenceSize+1))},
	} {
		_, err := l.verifier().Verify(t.Context(), ev, l.expected())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if _, judged := errors.AsType[*measure.VerificationError](err); judged {
			t.Errorf("%v: evidence that cannot be read was judged", err)
		}
	}
	enclave, err := l.vendor.NewChip(dcap.SGX, l.now, dcap.ChipOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := enclave.Quote(3, dcap.BodySGX, make([]byte, dcap.EnclaveReportSize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.verify(l.verifier(), &Evidence{Quote: q.Marshal()}, l.expected()); err == nil || !strings.Contains(err.Error(), "quote of an SGX enclave") {
		t.Errorf("the quote of an enclave: %v", err)
	}
}
