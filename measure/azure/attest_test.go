package azure

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// azureVM is a vTPM made of swtpm and of the lab's hardware. It shows the HCL
// report itself, for which swtpm's NV indices are too small; everything else is
// swtpm's own.
type azureVM struct {
	*tpmdev.TPM
	l *lab
	// slow is how many readings it takes until written user data are in the
	// report, from the last change on.
	slow int

	seen, shown []byte
	reads       int
	change      func(*HCLReport)
}

func newVM(t *testing.T, l *lab) *azureVM {
	p := &azureVM{TPM: tpmdev.New(swtpmtest.Start(t)), l: l, shown: make([]byte, 64)}
	if _, err := p.AttestationKey(t.Context(), AKHandle, true); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *azureVM) ReadNV(ctx context.Context, index uint32) ([]byte, error) {
	if index != ReportIndex {
		return p.TPM.ReadNV(ctx, index)
	}
	user, err := p.TPM.ReadNV(ctx, UserDataIndex)
	if err != nil && !errors.Is(err, tpmdev.ErrNoIndex) {
		return nil, err
	}
	if !bytes.Equal(user, p.seen) {
		p.seen, p.reads = user, 0
	}
	if p.reads++; p.reads > p.slow && user != nil {
		p.shown = user
	}
	key, err := p.AttestationKey(ctx, AKHandle, false)
	if err != nil {
		return nil, err
	}
	url := base64.RawURLEncoding.EncodeToString
	runtime, err := json.Marshal(map[string]any{
		"keys": []jwk{{
			ID: attestationKey, Operations: []string{"sign"}, Type: "RSA",
			E: url(big.NewInt(int64(key.E)).Bytes()), N: url(key.N.Bytes()),
		}},
		"user-data": strings.ToUpper(hex.EncodeToString(p.shown)),
	})
	if err != nil {
		return nil, err
	}
	e := new(Evidence)
	if err := p.l.sim.report(ctx, e, runtime); err != nil {
		return nil, err
	}
	if p.change != nil {
		p.change(e.HCL)
	}
	raw := e.HCL.Marshal()
	return append(raw, make([]byte, 2600-len(raw))...), nil
}

// metadata is the metadata service of the lab's host.
func (l *lab) metadata(t *testing.T) (Metadata, *atomic.Int32) {
	var asked atomic.Int32
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, r *http.Request, v any) {
		asked.Add(1)
		if r.Header.Get("Metadata") != "true" {
			http.Error(w, "no header", http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /metadata/THIM/amd/certification", func(w http.ResponseWriter, r *http.Request) {
		e := new(Evidence)
		if err := l.sim.report(r.Context(), e, nil); err != nil {
			t.Error(err)
		}
		vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.VCEK})
		answer(w, r, map[string]string{"vcekCert": string(vcek), "certificateChain": "", "tcbm": "DB18000000000004"})
	})
	mux.HandleFunc("POST /acc/tdquote", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Report string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		report, err := base64.RawURLEncoding.DecodeString(body.Report)
		if err != nil || len(report) != 1024 {
			t.Errorf("a report of %d bytes, %v", len(report), err)
			return
		}
		e := &Evidence{HCL: new(HCLReport)}
		if err := l.sim.reportOver(r.Context(), e, measure.ReportData(report[128:192])); err != nil {
			t.Error(err)
		}
		answer(w, r, map[string]string{"quote": base64.URLEncoding.EncodeToString(e.TDQuote)})
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return Metadata{URL: srv.URL}, &asked
}

func (l *lab) attester(t *testing.T, chip Chip, change func(*AttesterConfig)) *Attester {
	t.Helper()
	m, _ := l.metadata(t)
	cfg := AttesterConfig{
		Platform: l.sim.Platform(), Chip: chip, Metadata: m,
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	if change != nil {
		change(&cfg)
	}
	a, err := NewAttester(cfg)
	l.must(err)
	return a
}

// What the attester obtains of a real TPM under a paravisor that takes its time,
// with the logs of a boot and of runtime events, the verifier accepts.
func TestAttester(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		chip := newVM(t, l)
		chip.slow = 3
		boot, err := launch.Log()
		l.must(err)
		for _, e := range boot.Events {
			l.must(chip.Extend(t.Context(), e.Index, tpm.Bank, e.Digests[tpm.Bank]))
		}
		kernel := &tsmtest.Kernel{Files: map[string][]byte{tpm.FirmwareLog: boot.Marshal()}}
		log, err := aael.Open(t.Context(), aael.Config{Path: filepath.Join(t.TempDir(), "log"), Registers: tpm.Registers{Chip: chip}})
		l.must(err)
		m, asked := l.metadata(t)
		a := l.attester(t, chip, func(c *AttesterConfig) { c.Kernel, c.RuntimeLog, c.Metadata = kernel, log, m })
		l.must(a.BindInitData(t.Context(), document))
		event := eventlog.RuntimeEvent{Domain: "test", Operation: "Say", Content: "hello"}
		l.must(log.Extend(t.Context(), 14, event))
		for range 2 {
			ev, err := measure.EvidenceOver(t.Context(), a, challenge)
			l.must(err)
			got, err := l.verifier(true).Verify(t.Context(), ev, expected())
			if err != nil {
				t.Fatal(err)
			}
			if c := got.Check(measure.CheckEventLog); c.Outcome != measure.Passed {
				t.Errorf("event log: %+v", c)
			}
			if _, err := l.verifier(false).Verify(t.Context(), ev, expected()); err == nil {
				t.Error("a verifier that trusts nobody accepts it")
			}
			e, err := ParseEvidence(ev)
			l.must(err)
			if e.Version != 2 {
				t.Errorf("version %d", e.Version)
			}
		}
		want := map[measure.Platform]int32{measure.AzSNPvTPM: 1, measure.AzTDXvTPM: 2}[a.Platform()]
		if n := asked.Load(); n != want {
			t.Errorf("the metadata service was asked %d times, want %d", n, want)
		}
	})
}

// Callers at a time do not get each other's report.
func TestAttesterTakesTurns(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	a := l.attester(t, newVM(t, l), nil)
	errs := make(chan error)
	for i := range 4 {
		go func() {
			data := bytes.Repeat([]byte{byte(i + 1)}, 48)
			ev, err := a.EvidenceOver(t.Context(), data)
			if err == nil {
				_, err = l.verifier(true).Verify(t.Context(), ev, measure.Expected{ReportData: measure.BoundTo(data), InitData: measure.UnsafeUnbound("not of interest")})
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.EvidenceOver(gone, challenge); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller left: %v", err)
	}
}

func TestAttesterRefusals(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	second, other := newLab(t, measure.AzSNPvTPM), newLab(t, measure.AzTDXvTPM)
	dir := filepath.Join(t.TempDir(), "second")
	l.must(CreateGuest(measure.AzSNPvTPM, l.vendor, dir, launch))
	var err error
	second.sim, err = OpenSimulator(dir)
	l.must(err)
	answering := func(status int, body string) Metadata {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
		}))
		t.Cleanup(srv.Close)
		return Metadata{URL: srv.URL}
	}
	stale, foreign := newVM(t, l), newVM(t, other)
	stale.slow = renewAttempts
	broken := newVM(t, l)
	broken.change = func(h *HCLReport) { h.RuntimeData = []byte("{}") }
	for name, tc := range map[string]struct {
		chip   Chip
		change func(*AttesterConfig)
		want   string
	}{
		"a report that stays old": {stale, nil, "has not renewed"},
		"other hardware":          {foreign, nil, "is one of az-tdx-vtpm"},
		"no runtime data":         {broken, nil, "HCL runtime data"},
		"no HCL report":           {tpmdev.New(swtpmtest.Start(t)), nil, "read the HCL report"},
		"no such service":         {newVM(t, l), func(c *AttesterConfig) { c.Metadata = Metadata{URL: "http://127.0.0.1:1"} }, "ask the metadata service"},
		"throttled":               {newVM(t, l), func(c *AttesterConfig) { c.Metadata = answering(429, "") }, "answers 429"},
		"no JSON":                 {newVM(t, l), func(c *AttesterConfig) { c.Metadata = answering(200, "certificate") }, "no such JSON"},
		"no certificate":          {newVM(t, l), func(c *AttesterConfig) { c.Metadata = answering(200, `{"vcekCert":"x"}`) }, "no certificate in PEM"},
		"another chip's":          {newVM(t, l), func(c *AttesterConfig) { c.Metadata, _ = second.metadata(t) }, "another chip"},
		"endless":                 {newVM(t, l), func(c *AttesterConfig) { c.Metadata = answering(200, strings.Repeat(" ", maxMetadata+1)) }, "more than"},
	} {
		a := l.attester(t, tc.chip, tc.change)
		if _, err := a.EvidenceOver(t.Context(), challenge); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if _, err := l.attester(t, newVM(t, l), nil).EvidenceOver(t.Context(), nil); err == nil {
		t.Error("evidence about nothing")
	}
	for name, cfg := range map[string]AttesterConfig{"no chip": {Platform: measure.AzSNPvTPM}, "another platform": {Platform: measure.TPM, Chip: stale}} {
		if _, err := NewAttester(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A quote of the host's that is about something else is noticed.
func TestTDQuoteOfAnotherReport(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	for name, quote := range map[string]func() []byte{
		"another report": func() []byte { return l.evidence().TDQuote },
		"no quote":       func() []byte { return []byte("quote") },
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string][]byte{"quote": quote()})
		}))
		a := l.attester(t, newVM(t, l), func(c *AttesterConfig) { c.Metadata = Metadata{URL: srv.URL} })
		if _, err := a.EvidenceOver(t.Context(), challenge); err == nil || !strings.Contains(err.Error(), "TD quote") {
			t.Errorf("%s: %v", name, err)
		}
		srv.Close()
	}
}

var (
	_ measure.DigestAttester = (*Attester)(nil)
	_ Chip                   = (*tpmdev.TPM)(nil)
)

// The metadata service is the host's: what it answers must not bring the agent
// down.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"vcekCert":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}`))
	f.Add([]byte(`{"quote":"BAACAIEAAAA"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if der, err := parseVCEK(raw); err == nil && len(der) > maxCertificate {
			t.Fatal("a certificate without an end")
		}
		if _, err := parseTDQuote(raw, []byte("digest")); err == nil && !bytes.Contains(raw, []byte("quote")) {
			t.Fatal("a quote out of nothing")
		}
	})
}
