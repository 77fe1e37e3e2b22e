package tpm

import (
	"crypto/sha1" //nolint:gosec // the kernel's
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/ima"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// measured is what a kernel lists of files, whose content is their name.
func measured(paths ...string) (list ima.List) {
	for _, p := range paths {
		var data []byte
		for _, field := range []string{"sha256:\x00" + string(Bank.Sum([]byte(p))), p + "\x00"} {
			data = append(binary.LittleEndian.AppendUint32(data, uint32(len(field))), field...)
		}
		list = append(list, ima.Entry{PCR: ima.PCR, Digest: sha1.Sum(data), Template: "ima-ng", Data: data}) //nolint:gosec // the kernel's
	}
	return list
}

// What the kernel measured of files is a claim where PCR 10 bears it out, up to the
// quote; where it does not, evidence is refused; and without a list nothing is
// said of the register but its value.
func TestIMA(t *testing.T) {
	l := newLab(t, rsaKey())
	all := measured("boot_aggregate", "/init", "/bin/sh", "/later")
	for _, e := range all[:3] {
		l.must(l.device.Extend(Bank, ima.PCR, e.Sum(Bank)))
	}
	verify := func(list []byte) (measure.Verdict, error) {
		e := l.quote(challenge[:32])
		e.IMAList = list
		return l.verify(l.config(), e, l.expected())
	}
	got, err := verify(all.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	claims, _ := got.Claims[ClaimIMA].(measure.Claims)
	if files, _ := claims["files"].([]any); len(files) != 3 || files[2].(measure.Claims)["path"] != "/bin/sh" || claims["entries"] != json.Number("3") {
		t.Errorf("claims %v", claims)
	}
	for name, list := range map[string][]byte{
		"one is missing": append(all[:1:1], all[2:]...).Marshal(), "too short": all[:2].Marshal(), "of another guest": measured("/other").Marshal(),
		"no list": []byte("x"),
	} {
		got, err := verify(list)
		if err == nil || got.Check(measure.CheckEventLog).Outcome != measure.Failed || got.Claims[ClaimIMA] != nil {
			t.Errorf("%s: %v, claims %v", name, err, got.Claims[ClaimIMA])
		}
	}
	if got, err := verify(nil); err != nil || got.Claims[ClaimIMA] != nil || got.Claims["pcr10"] == strings.Repeat("0", 64) {
		t.Errorf("without a list: %v, %v", got.Claims[ClaimIMA], err)
	}
}

// The list alone makes no event log of evidence that has none.
func TestIMAWithoutEventLog(t *testing.T) {
	values := make([][]byte, PCRs)
	for i := range values {
		values[i] = make([]byte, 32)
	}
	list := measured("/init")
	// Nothing was measured: that is no claim that no file was.
	for _, raw := range [][]byte{list.Marshal(), {}} {
		if r := explain(values, logs{ima: raw}); r.Check.Outcome != measure.NotApplicable || r.IMA != nil {
			t.Errorf("%+v", r)
		}
	}
	values[ima.PCR] = list.End(Bank)
	if r := explain(values, logs{ima: list.Marshal()}); r.Check.Outcome != measure.NotApplicable || r.IMA["entries"] != json.Number("1") {
		t.Errorf("%+v", r)
	}
	if r := explain(values[:ima.PCR], logs{ima: list.Marshal()}); r.Check.Outcome != measure.Failed {
		t.Errorf("%+v", r)
	}
}

// An attester sends the list, unless it is longer than what is sent.
func TestIMAObtained(t *testing.T) {
	chip := tpmdev.New(swtpmtest.Start(t))
	for name, tt := range map[string]struct{ list, sent []byte }{
		"a list": {measured("/init").Marshal(), measured("/init").Marshal()}, "an empty list": {list: []byte{}},
		"too long a list": {list: make([]byte, ima.MaxSize+1)},
	} {
		a, err := NewAttester(AttesterConfig{Chip: chip, Kernel: &tsmtest.Kernel{Files: map[string][]byte{ima.File: tt.list}}})
		if err != nil {
			t.Fatal(err)
		}
		ev, err := a.Evidence(t.Context(), measure.ReportData{1})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e, err := ParseEvidence(ev); err != nil || string(e.IMAList) != string(tt.sent) {
			t.Errorf("%s: %d bytes, %v", name, len(e.IMAList), err)
		}
	}
}
