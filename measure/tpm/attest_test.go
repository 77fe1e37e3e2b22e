package tpm

import (
	"bytes"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// What the attester obtains of a real TPM, with the logs of a boot and of
// runtime events, the verifier accepts.
func TestAttester(t *testing.T) {
	chip := tpmdev.New(swtpmtest.Start(t))
	boot, err := launch.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range boot.Events {
		if err := chip.Extend(t.Context(), e.Index, Bank, e.Digests[Bank]); err != nil {
			t.Fatal(err)
		}
	}
	kernel := &tsmtest.Kernel{Files: map[string][]byte{FirmwareLog: boot.Marshal()}}
	log, err := aael.Open(t.Context(), aael.Config{
		Path: filepath.Join(t.TempDir(), "log"), Registers: Registers{chip}, Firmware: boot.Marshal(),
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAttester(AttesterConfig{Chip: chip, Kernel: kernel, RuntimeLog: log})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a restart of the agent does not extend again
		if err := a.BindInitData(t.Context(), document); err != nil {
			t.Fatal(err)
		}
	}
	event := eventlog.RuntimeEvent{Domain: "test", Operation: "Say", Content: "hello"}
	if err := log.Extend(t.Context(), 14, event); err != nil {
		t.Fatal(err)
	}
	if err := log.Extend(t.Context(), eventlog.DefaultRuntimePCR, event); err == nil {
		t.Error("PCR 17 of a PC belongs to the dynamic launch")
	}

	ev, err := a.Evidence(t.Context(), measure.ReportData(append(bytes.Clone(challenge), make([]byte, 64-len(challenge))...)))
	if err != nil {
		t.Fatal(err)
	}
	key, err := chip.AttestationKey(t.Context(), DefaultAK, false)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(VerifierConfig{Enrolled: []EnrolledKeys{{"this machine", public}}})
	if err != nil {
		t.Fatal(err)
	}
	want := measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(document)}
	got, err := v.Verify(t.Context(), ev, want)
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Check(measure.CheckEventLog); c.Outcome != measure.Passed {
		t.Errorf("event log: %+v", c)
	}
	e, err := ParseEvidence(ev)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := eventlog.Parse(e.EventLog)
	if err != nil {
		t.Fatal(err)
	}
	if last, ok := sent.Events[len(sent.Events)-1].Runtime(); !ok || last != event {
		t.Errorf("the last event is %v", last)
	}
}

func TestAttesterWithoutLogs(t *testing.T) {
	chip := tpmdev.New(swtpmtest.Start(t))
	for name, cfg := range map[string]AttesterConfig{
		"no kernel":             {Chip: chip},
		"a kernel without logs": {Chip: chip, Kernel: &tsmtest.Kernel{}, AK: 0x81010009},
	} {
		a, err := NewAttester(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := a.Evidence(t.Context(), measure.ReportData{1})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e, err := ParseEvidence(ev); err != nil || e.EventLog != nil {
			t.Errorf("%s: a log of %d bytes, %v", name, len(e.EventLog), err)
		}
	}
	if _, err := NewAttester(AttesterConfig{}); err == nil {
		t.Error("no TPM is needed")
	}
}

func TestBindInitData(t *testing.T) {
	chip := tpmdev.New(swtpmtest.Start(t))
	if err := BindInitData(t.Context(), chip, nil); err != nil {
		t.Error(err)
	}
	if err := BindInitData(t.Context(), chip, make([]byte, 48)); err == nil {
		t.Error("a digest of sha384 goes into a PCR")
	}
	if err := BindInitData(t.Context(), chip, document); err != nil {
		t.Error(err)
	}
	other := eventlog.SHA256.Sum([]byte("other"))
	if err := BindInitData(t.Context(), chip, other); !errors.Is(err, initdata.ErrField) {
		t.Errorf("a second document: %v", err)
	}
	values, err := chip.ReadPCRs(t.Context(), Bank)
	if err != nil || !bytes.Equal(values[InitDataPCR], InitDataValue(document)) {
		t.Errorf("PCR 8 is %x, %v", values[InitDataPCR], err)
	}
}

func TestRegisters(t *testing.T) {
	for _, pcr := range []int{-1, 0, 7, 8, 10, 16, 17, 22, 23, 24} {
		if _, err := (Registers{}).Index(pcr); err == nil {
			t.Errorf("PCR %d keeps a record", pcr)
		}
	}
	for _, pcr := range []int{9, 11, 15} {
		if got, err := (Registers{}).Index(pcr); err != nil || got != pcr {
			t.Errorf("PCR %d: %d, %v", pcr, got, err)
		}
	}
	if _, err := (Registers{}).Read(t.Context(), 24); err == nil {
		t.Error("there is a PCR 24")
	}
}

var (
	_ measure.Attester = (*Attester)(nil)
	_ aael.Registers   = Registers{}
	_ Chip             = (*tpmdev.TPM)(nil)
)
