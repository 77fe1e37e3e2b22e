package azure

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

func TestGoodEvidence(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		got, err := l.verify(l.evidence(), expected())
		if err != nil {
			t.Fatal(err)
		}
		if got.Platform != l.sim.Platform() || got.Class != "cpu" || got.Root != (measure.Root{Name: "lab", Simulated: true}) {
			t.Errorf("%s, class %s, root %+v", got.Platform, got.Class, got.Root)
		}
		names := map[measure.CheckName]int{}
		for _, c := range got.Checks {
			names[c.Name]++
			if c.Outcome != measure.Passed {
				t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
			}
		}
		for _, name := range []measure.CheckName{
			measure.CheckSignature, measure.CheckChain, measure.CheckRevocation, measure.CheckTCB, CheckRuntimeData, tpm.CheckPCRs,
			measure.CheckBinding, measure.CheckInitData, measure.CheckEventLog,
		} {
			if names[name] != 1 {
				t.Errorf("%d checks named %s", names[name], name)
			}
		}
		pcrs, err := tpm.Predict(launch)
		if err != nil {
			t.Fatal(err)
		}
		for want, path := range map[string][]string{
			hex.EncodeToString(challenge): {"report_data"}, hex.EncodeToString(tpm.InitDataValue(document)): {"init_data"},
			hex.EncodeToString(pcrs[11]): {"tpm", "pcr11"}, "lab": {"simulated_root"}, l.sim.vm: {"vm_configuration", "vmUniqueId"},
			hex.EncodeToString(make([]byte, 32)): {"tpm", "pcr16"}, strings.Repeat("ff", 32): {"tpm", "pcr17"},
			"2": {"evidence_version"}, "SHA-256:0-23": {"pcr_selection"},
		} {
			if v := fmt.Sprint(claim(got.Claims, path...)); v != want {
				t.Errorf("%v is %v, want %s", path, v, want)
			}
		}
		if events, ok := got.Claims[eventlog.ClaimEvents].([]any); !ok || len(events) == 0 {
			t.Errorf("events %v", got.Claims[eventlog.ClaimEvents])
		}
	})
}

// All of an SNP report's claims are strings (kbs-protocol 16.5).
func TestClaimsOfSNPAreText(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	got, err := l.verify(l.evidence(), expected())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"policy_debug_allowed": "false", "policy_abi_major": "0", "platform_smt_enabled": "true", "vmpl": "0"} {
		if got.Claims[name] != want {
			t.Errorf("%s is %v, want %q", name, got.Claims[name], want)
		}
	}
	for name, v := range got.Claims {
		if _, ok := v.(json.Number); ok && strings.Contains(name, "tcb") {
			t.Errorf("%s is a number", name)
		}
	}
}

// What the field's guests send in all its versions. From version 2 on the
// runtime data are bound as well; before, they are not looked at.
func TestVersions(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		unbound := l.sim.runtimeData(measure.ReportData{})
		for version, want := range []bool{true, true, false} {
			e := l.evidence()
			if _, err := l.verifier(true).Verify(context.Background(), l.spell(e, version), expected()); err != nil {
				t.Errorf("version %d: %v", version, err)
			}
			l.runtime(e, unbound, true)
			got, err := l.verifier(true).Verify(context.Background(), l.spell(e, version), expected())
			if (err == nil) != want {
				t.Errorf("version %d with the user data of another time: %v", version, err)
			}
			if v := fmt.Sprint(got.Claims["evidence_version"]); v != fmt.Sprint(version) {
				t.Errorf("version %d is claimed as %s", version, v)
			}
		}
	})
}

// spell writes evidence in any of the versions.
func (l *lab) spell(e *Evidence, version int) measure.Evidence {
	l.t.Helper()
	if version > 0 {
		e.Version = version
		return l.wire(e)
	}
	pcrs := [][]int{}
	for _, v := range e.PCRs {
		pcrs = append(pcrs, octets(v))
	}
	quote := map[string]any{"signature": octets(e.Signature), "message": octets(e.Message), "pcrs": pcrs}
	old := map[string]any{
		"quote": quote, "report": octets(e.HCL.Marshal()),
		"vcek": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.VCEK})),
	}
	if e.Platform == measure.AzTDXvTPM {
		old = map[string]any{"tpm_quote": quote, "hcl_report": octets(e.HCL.Marshal()), "td_quote": octets(e.TDQuote)}
	}
	data, err := json.Marshal(old)
	l.must(err)
	return measure.Evidence{Platform: e.Platform, Data: data}
}

// Each way in which evidence can be wrong fails the checks that are meant for
// it, and no other.
func TestRejections(t *testing.T) {
	bank := tpm.AllPCRs(tpm.Bank)
	for name, c := range map[string]struct {
		change func(l *lab, e *Evidence)
		want   measure.Expected
		failed []measure.CheckName
	}{
		"the quote is signed by a key that the hardware does not vouch for": {func(l *lab, e *Evidence) {
			device, err := tpm.NewDevice(anotherKey(), nil)
			l.must(err)
			_, s, _, err := device.Quote(challenge, bank)
			l.must(err)
			e.Signature = s.RSA
		}, expected(), []measure.CheckName{measure.CheckSignature}},
		"the runtime data name another key": {func(l *lab, e *Evidence) {
			other := *l.sim
			other.ak = anotherKey()
			l.runtime(e, other.runtimeData(measure.ReportData(append(challenge, make([]byte, 16)...))), false)
		}, expected(), []measure.CheckName{measure.CheckSignature, CheckRuntimeData}},
		"the report data go on after the digest": {func(l *lab, e *Evidence) {
			data, err := measure.NewReportData(append(e.HCL.Binding(), 1))
			l.must(err)
			l.must(l.sim.reportOver(context.Background(), e, data))
		}, expected(), []measure.CheckName{CheckRuntimeData}},
		"the runtime data are hashed otherwise": {func(_ *lab, e *Evidence) {
			e.HCL.Hash = eventlog.SHA384
		}, expected(), []measure.CheckName{CheckRuntimeData}},
		"the HCL report says that it is of another hardware": {func(_ *lab, e *Evidence) {
			e.HCL.Type = ReportSNP + ReportTDX - e.HCL.Type
		}, expected(), []measure.CheckName{CheckRuntimeData}},
		"a resettable PCR is quoted where PCR 8 belongs": {func(l *lab, e *Evidence) {
			l.must(l.sim.device.Extend(tpm.Bank, 16, document))
			l.requote(e, challenge, tpm.Selection{Bank: tpm.Bank, Bitmap: []byte{0xff, 0x00, 0x01}})
			e.EventLog = nil
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"another bank is quoted": {func(l *lab, e *Evidence) {
			l.requote(e, challenge, tpm.AllPCRs(eventlog.SHA384))
			e.EventLog = nil
		}, measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.NotPresented()}, []measure.CheckName{tpm.CheckPCRs}},
		"two banks are quoted": {func(l *lab, e *Evidence) {
			l.requote(e, challenge, bank, tpm.AllPCRs(eventlog.SHA384))
			e.PCRs = e.PCRs[:tpm.PCRs]
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"a PCR is made up": {func(_ *lab, e *Evidence) {
			e.PCRs[14] = slices.Repeat([]byte{1}, 32)
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"two PCRs change places": {func(_ *lab, e *Evidence) {
			e.PCRs[14], e.PCRs[17] = e.PCRs[17], e.PCRs[14]
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"a PCR is missing": {func(_ *lab, e *Evidence) {
			e.PCRs = e.PCRs[:23]
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"there is a PCR more": {func(_ *lab, e *Evidence) {
			e.PCRs = append(e.PCRs, make([]byte, 32))
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"the bytes of two PCRs are split elsewhere": {func(_ *lab, e *Evidence) {
			both := slices.Concat(e.PCRs[14], e.PCRs[15])
			e.PCRs[14], e.PCRs[15] = both[:31], both[31:]
		}, expected(), []measure.CheckName{tpm.CheckPCRs}},
		"an old quote": {func(l *lab, e *Evidence) {
			l.requote(e, []byte("another challenge"), bank)
		}, expected(), []measure.CheckName{measure.CheckBinding}},
		"a quote over the digest filled up": {func(l *lab, e *Evidence) {
			l.requote(e, append(challenge[:48:48], make([]byte, 16)...), bank)
		}, expected(), []measure.CheckName{measure.CheckBinding}},
		"a quote over the start of the digest": {func(l *lab, e *Evidence) {
			l.requote(e, challenge[:32], bank)
		}, expected(), []measure.CheckName{measure.CheckBinding}},
		"an old hardware report": {func(l *lab, e *Evidence) {
			l.runtime(e, l.sim.runtimeData(measure.ReportData{1}), true)
		}, expected(), []measure.CheckName{measure.CheckBinding}},
		"a hardware report without user data": {func(l *lab, e *Evidence) {
			data, _, _ := strings.Cut(string(e.HCL.RuntimeData), `,"user-data"`)
			l.runtime(e, []byte(data+"}"), true)
		}, expected(), []measure.CheckName{measure.CheckBinding}},
		"nothing to be bound to": {func(*lab, *Evidence) {}, measure.Expected{ReportData: measure.NotPresented(), InitData: measure.BoundTo(document)}, []measure.CheckName{measure.CheckBinding}},
		"an empty digest":        {func(*lab, *Evidence) {}, measure.Expected{ReportData: measure.BoundTo(nil), InitData: measure.BoundTo(document)}, []measure.CheckName{measure.CheckBinding}},
		"other init-data": {
			func(*lab, *Evidence) {},
			measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(make([]byte, 32))}, []measure.CheckName{measure.CheckInitData},
		},
		"init-data with a digest of 48 bytes": {
			func(*lab, *Evidence) {},
			measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(make([]byte, 48))}, []measure.CheckName{measure.CheckInitData},
		},
		"init-data that were bound twice": {func(l *lab, e *Evidence) {
			l.must(l.sim.device.Extend(tpm.Bank, tpm.InitDataPCR, document))
			l.requote(e, challenge, bank)
		}, expected(), []measure.CheckName{measure.CheckInitData}},
		"a log of another boot": {func(l *lab, e *Evidence) {
			log, err := tpm.Launch{Image: []byte("another")}.Log()
			l.must(err)
			e.EventLog = log.Marshal()
		}, expected(), []measure.CheckName{measure.CheckEventLog}},
		"an event is missing in the log": {func(l *lab, e *Evidence) {
			log, err := eventlog.Parse(e.EventLog)
			l.must(err)
			log.Events = log.Events[:len(log.Events)-1]
			e.EventLog = log.Marshal()
		}, expected(), []measure.CheckName{measure.CheckEventLog}},
		"something happened after the log": {func(l *lab, e *Evidence) {
			l.must(l.sim.device.Extend(tpm.Bank, 11, document))
			l.requote(e, challenge, bank)
		}, expected(), []measure.CheckName{measure.CheckEventLog}},
		"a log that is none": {func(_ *lab, e *Evidence) {
			e.EventLog = []byte("a log")
		}, expected(), []measure.CheckName{measure.CheckEventLog}},
		"all at once": {func(l *lab, e *Evidence) {
			e.HCL.RuntimeData = append(e.HCL.RuntimeData, ' ')
			l.requote(e, []byte("x"), tpm.AllPCRs(eventlog.SHA384))
			e.Signature[9] ^= 1
		}, measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(make([]byte, 32))}, []measure.CheckName{
			measure.CheckSignature, CheckRuntimeData, tpm.CheckPCRs, measure.CheckBinding, measure.CheckInitData, measure.CheckEventLog,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, l *lab) {
				e := l.evidence()
				c.change(l, e)
				_, err := l.verify(e, c.want)
				checkFailed(t, err, c.failed...)
			})
		})
	}
}

func checkFailed(t *testing.T, err error, want ...measure.CheckName) {
	t.Helper()
	verr, ok := errors.AsType[*measure.VerificationError](err)
	if !ok {
		t.Fatalf("%v", err)
	}
	var got []measure.CheckName
	for _, c := range verr.Failed {
		got = append(got, c.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v failed, want %v: %v", got, want, err)
	}
}

// A log may leave out what it does not speak of, and a guest may have none.
func TestWithoutEventLog(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		e := l.evidence()
		e.EventLog = nil
		got, err := l.verify(e, expected())
		if err != nil || got.Check(measure.CheckEventLog).Outcome != measure.NotApplicable || got.Claims[eventlog.ClaimEvents] != nil {
			t.Errorf("%v, %+v", err, got.Check(measure.CheckEventLog))
		}
	})
}

func TestWaivers(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		e := l.evidence()
		l.requote(e, nil, tpm.AllPCRs(tpm.Bank))
		want := measure.Expected{ReportData: measure.UnsafeUnbound("a test"), InitData: measure.UnsafeUnbound("a test")}
		got, err := l.verify(e, want)
		if err != nil || got.Check(measure.CheckBinding).Outcome != measure.Waived || got.Check(measure.CheckInitData).Outcome != measure.Waived {
			t.Errorf("%v, %+v", err, got.Checks)
		}
		if _, err := l.verify(e, measure.Expected{}); !errors.Is(err, measure.ErrUnset) {
			t.Errorf("nobody said what to expect: %v", err)
		}
	})
}

// The hardware's own checks count here as well.
func TestHardware(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		ev := l.wire(l.evidence())
		_, err := l.verifier(false).Verify(context.Background(), ev, expected())
		if verr, ok := errors.AsType[*measure.VerificationError](err); !ok || !verr.UntrustedRoot() {
			t.Errorf("a root that nobody named: %v", err)
		}
		l.now = l.now.Add(-24 * time.Hour)
		_, err = l.verifier(true).Verify(context.Background(), ev, expected())
		if verr, ok := errors.AsType[*measure.VerificationError](err); !ok || !verr.Has(measure.CheckChain) {
			t.Errorf("before the certificates are valid: %v", err)
		}
	})
}

func TestDebugHardware(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	dir := t.TempDir() + "/debug"
	l.must(tdx.CreateGuest(l.vendor, dir, tdx.Launch{Image: paravisor, Attributes: tdx.AttrDebug}))
	var err error
	l.sim.hardware, err = tdx.OpenSimulator(dir)
	l.must(err)
	_, err = l.verify(l.evidence(), expected())
	checkFailed(t, err, tdx.CheckAttributes)
}

// A report that the guest itself got, at another VMPL, is not the paravisor's.
func TestHardwareReportOfTheGuest(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	e := l.evidence()
	r, err := snp.ParseReport(e.HCL.Hardware[:])
	l.must(err)
	r.VMPL = 2
	e.HCL.Hardware = [hardwareSize]byte(r.Marshal())
	_, err = l.verify(e, expected())
	if verr, ok := errors.AsType[*measure.VerificationError](err); !ok || !verr.Has(measure.CheckSignature) || len(verr.Failed) < 2 {
		t.Errorf("%v", err)
	}
}

func TestVerifierRefuses(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	v := l.verifier(true)
	if _, err := NewVerifier(v); err == nil {
		t.Error("a verifier of Azure upon one of Azure")
	}
	ev := l.wire(l.evidence())
	ev.Platform = measure.AzTDXvTPM
	if _, err := v.Verify(context.Background(), ev, expected()); err == nil {
		t.Error("evidence of the other platform")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Verify(ctx, l.wire(l.evidence()), expected()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
