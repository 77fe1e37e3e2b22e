package sgx

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

func TestSimulatedEvidencePasses(t *testing.T) {
	l := newLab(t)
	ev, err := l.sim.Evidence(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.verifier().Verify(t.Context(), ev, l.expected())
	if err != nil {
		t.Fatal(err)
	}
	if want := (measure.Root{Name: "lab", Simulated: true}); got.Root != want || got.Platform != measure.SGX || got.Class != "cpu" {
		t.Errorf("verdict %+v", got)
	}
	for _, c := range got.Checks {
		want := measure.Passed
		if c.Name == measure.CheckEventLog {
			want = measure.NotApplicable
		}
		if c.Outcome != want {
			t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
		}
	}
	enclave, err := Predict(l.launch)
	if err != nil {
		t.Fatal(err)
	}
	body := got.Claims["body"].(measure.Claims)
	for name, want := range map[string]any{
		"mr_enclave": hex.EncodeToString(enclave[:]), "mr_signer": "ab" + strings.Repeat("0", 62), "isv_prod_id": "0300", "isv_svn": "0700",
		"attributes.flags": "0500000000000000", "attributes.xfrm": "e700000000000000", "misc_select": "00000000",
		"report_data": hex.EncodeToString(challenge[:]), "isv_family_id": strings.Repeat("0", 32),
	} {
		if body[name] != want {
			t.Errorf("body.%s is %v, want %v", name, body[name], want)
		}
	}
	header := got.Claims["header"].(measure.Claims)
	for name, want := range map[string]any{
		"version": "0300", "att_key_type": "0200", "att_key_data_0": "00000000", "qe_svn": "0600", "pce_svn": "0d00",
	} {
		if header[name] != want {
			t.Errorf("header.%s is %v, want %v", name, header[name], want)
		}
	}
	for name, want := range map[string]any{
		"tcb_status": "UpToDate", "debug": false, "simulated_root": "lab", "report_data": hex.EncodeToString(challenge[:]),
	} {
		if got.Claims[name] != want {
			t.Errorf("%s is %v, want %v", name, got.Claims[name], want)
		}
	}
	if id, _ := got.Claims["init_data"].(string); len(id) != 128 || !strings.HasPrefix(id, hex.EncodeToString(l.launch.InitDataDigest)) {
		t.Errorf("init_data is %q", id)
	}
}

func TestRefused(t *testing.T) {
	const attributes, binding, initData, tcb = CheckAttributes, measure.CheckBinding, measure.CheckInitData, measure.CheckTCB
	for name, test := range map[string]struct {
		launch func(*Launch)
		report func(*dcap.EnclaveReport)
		want   map[measure.CheckName]string
	}{
		"debug":             {launch: func(l *Launch) { l.Debug = true }, want: map[measure.CheckName]string{attributes: "this is a debug enclave"}},
		"not initialised":   {report: func(r *dcap.EnclaveReport) { r.Attributes.Flags = 4 }, want: map[measure.CheckName]string{attributes: "was not initialised"}},
		"both":              {report: func(r *dcap.EnclaveReport) { r.Attributes.Flags = 6 }, want: map[measure.CheckName]string{attributes: "was not initialised; this is a debug enclave"}},
		"another challenge": {report: func(r *dcap.EnclaveReport) { r.ReportData[0] ^= 1 }, want: map[measure.CheckName]string{binding: "not bound to this challenge"}},
		"other init-data":   {report: func(r *dcap.EnclaveReport) { r.ConfigID[63] ^= 1 }, want: map[measure.CheckName]string{initData: "not bound to this init-data"}},
		"an old quoting enclave": {
			launch: func(l *Launch) { l.Chip.QE = func(r *dcap.EnclaveReport) { r.ISVSVN -= 2 } },
			want:   map[measure.CheckName]string{tcb: "the TCB is OutOfDate"},
		},
		"the quoting enclave of TDX": {
			launch: func(l *Launch) { l.Chip.QE = func(r *dcap.EnclaveReport) { r.ISVProdID = 2 } },
			want:   map[measure.CheckName]string{measure.CheckChain: "another product", tcb: "another product"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.launch == nil {
				test.launch = func(*Launch) {}
			}
			if test.report == nil {
				test.report = func(*dcap.EnclaveReport) {}
			}
			l := newLab(t, test.launch)
			_, err := l.verify(l.verifier(), l.evidence(test.report))
			verdicttest.WantFailures(t, err, test.want)
		})
	}
}

func TestDebugWaived(t *testing.T) {
	l := newLab(t, func(l *Launch) { l.Debug = true })
	v := l.verifier(func(c *VerifierConfig) { c.UnsafeDebug = true })
	got, err := l.verify(v, l.evidence())
	if c := got.Check(CheckAttributes); err != nil || c.Outcome != measure.Waived || got.Claims["debug"] != true {
		t.Errorf("%+v, %v", c, err)
	}
	// the waiver is for debugging alone
	_, err = l.verify(v, l.evidence(func(r *dcap.EnclaveReport) { r.Attributes.Flags &^= dcap.FlagInit }))
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckAttributes: "was not initialised"})
}

func TestZeroConfigRefuses(t *testing.T) {
	v, err := NewVerifier(VerifierConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	_, err = l.verify(v, l.evidence())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "", measure.CheckRevocation: "", measure.CheckTCB: ""})
	if _, err := v.Verify(t.Context(), wire(t, l.evidence()), measure.Expected{}); !errors.Is(err, measure.ErrUnset) {
		t.Errorf("nothing was demanded: %v", err)
	}
}

func TestParseEvidenceRefuses(t *testing.T) {
	l := newLab(t)
	td, err := l.vendor.NewChip(dcap.TDX, l.now, dcap.ChipOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := td.Quote(4, dcap.BodyTD10, make([]byte, 584))
	if err != nil {
		t.Fatal(err)
	}
	for want, ev := range map[string]measure.Evidence{
		`evidence of platform "tdx"`: {Platform: measure.TDX, Data: wire(t, l.evidence()).Data},
		"this is the quote of a TD":  wire(t, &Evidence{Quote: q.Marshal()}),
		"quote: not base64":          {Platform: measure.SGX, Data: []byte(`{"quote":1}`)},
		"SGX evidence: ":             {Platform: measure.SGX, Data: []byte(`7`)},
		`"quote"`:                    {Platform: measure.SGX, Data: []byte(`{"quote":"AA==","quote":"AA=="}`)},
		"at most ":                   {Platform: measure.SGX, Data: []byte(strings.Repeat(" ", MaxEvidenceSize+1))},
	} {
		if _, err := l.verifier().Verify(t.Context(), ev, l.expected()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestNoSimulatedRootIsProduction holds evidence of a simulated vendor against
// every configuration that does not name it.
func TestNoSimulatedRootIsProduction(t *testing.T) {
	l, stranger := newLab(t), newLab(t)
	for bits := range 1 << 5 {
		on := func(n int) bool { return bits>>n&1 != 0 }
		c := VerifierConfig{Config: dcap.Config{UnsafeNoCollateral: on(0), Accepted: dcap.Acceptable()}, UnsafeDebug: on(1)}
		if on(2) {
			c.Source = l.source(dcap.Statement{})
		}
		if on(3) {
			c.Grace = 10 * 365 * 24 * time.Hour
		}
		if on(4) {
			c.UnsafeSimulatedRoots = []dcap.SimulatedRoot{{Name: "another", Bundle: stranger.vendor.Bundle()}}
		}
		v, err := NewVerifier(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.verify(v, l.evidence()); err == nil || got.Check(measure.CheckChain).Outcome != measure.Failed {
			t.Fatalf("accepted by a configuration that does not name its root: %+v", c)
		}
	}
}

// realVerifier trusts Intel alone, at a time at which the recorded chain was
// valid, and knows no collateral.
func realVerifier(t testing.TB, debug bool) *Verifier {
	t.Helper()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	v, err := NewVerifier(VerifierConfig{Config: dcap.Config{UnsafeNoCollateral: true, Now: func() time.Time { return at }}, UnsafeDebug: debug})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRealEnclave is a quote of real hardware, of an enclave that its host may
// look into.
func TestRealEnclave(t *testing.T) {
	raw := evidencetest.File(t, "sgx", "occlum_quote.dat")
	want := measure.Expected{ReportData: measure.BoundTo([]byte("test")), InitData: measure.NotPresented()}
	_, err := realVerifier(t, false).Verify(t.Context(), wire(t, &Evidence{Quote: raw}), want)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckAttributes: "this is a debug enclave"})
	v := realVerifier(t, true)
	got, err := v.Verify(t.Context(), wire(t, &Evidence{Quote: raw}), want)
	if err != nil {
		t.Fatal(err)
	}
	body := got.Claims["body"].(measure.Claims)
	for name, prefix := range map[string]string{"mr_enclave": "8f173e46", "mr_signer": "83d719e7"} {
		if v, _ := body[name].(string); !strings.HasPrefix(v, prefix) {
			t.Errorf("%s is %q, want %s..", name, v, prefix)
		}
	}
	if got.Root != (measure.Root{Name: "Intel SGX Root CA"}) || got.Claims["fmspc"] != "00606a000000" {
		t.Errorf("root %+v, fmspc %v", got.Root, got.Claims["fmspc"])
	}
	if _, err := v.Verify(t.Context(), wire(t, &Evidence{Quote: raw}), measure.Expected{
		ReportData: measure.BoundTo([]byte("tesT")), InitData: measure.NotPresented(),
	}); err == nil {
		t.Error("it is bound to another text too")
	}
	for at := range 48 + dcap.EnclaveReportSize {
		changed := bytes.Clone(raw)
		changed[at] ^= 0x10
		if _, err := v.Verify(t.Context(), wire(t, &Evidence{Quote: changed}), measure.Expected{
			ReportData: measure.UnsafeUnbound("a recording"), InitData: measure.NotPresented(),
		}); err == nil {
			t.Fatalf("byte %d was changed, and nobody noticed", at)
		}
	}
}

func FuzzParseEvidence(f *testing.F) {
	f.Add([]byte(`{"quote":"AwACAA=="}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := ParseEvidence(measure.Evidence{Platform: measure.SGX, Data: raw})
		if err != nil {
			return
		}
		again, err := ParseEvidence(wire(t, e))
		if err != nil || !bytes.Equal(again.Quote, e.Quote) {
			t.Fatalf("accepted %q, and sent again it is %+v, %v", raw, again, err)
		}
		if _, err := e.Claims(); err != nil {
			return
		}
	})
}
