package azure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// Evidence that cannot be read gives an error and no verdict.
func TestParseEvidenceRefuses(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	good := l.wire(l.evidence())
	old := l.spell(l.evidence(), 0)
	change := func(ev measure.Evidence, f func(m map[string]any)) measure.Evidence {
		t.Helper()
		var m map[string]any
		l.must(json.Unmarshal(ev.Data, &m))
		f(m)
		data, err := json.Marshal(m)
		l.must(err)
		return measure.Evidence{Platform: ev.Platform, Data: data}
	}
	set := func(value any, path ...string) func(m map[string]any) {
		return func(m map[string]any) {
			for _, name := range path[:len(path)-1] {
				m, _ = m[name].(map[string]any)
			}
			m[path[len(path)-1]] = value
		}
	}
	for name, ev := range map[string]measure.Evidence{
		"another platform":        {Platform: measure.TPM, Data: good.Data},
		"not JSON":                {Platform: measure.AzSNPvTPM, Data: []byte("x")},
		"too large":               {Platform: measure.AzSNPvTPM, Data: bytes.Repeat([]byte(" "), MaxEvidenceSize+1)},
		"a member twice":          {Platform: measure.AzSNPvTPM, Data: append([]byte(`{"version":1,`), good.Data[1:]...)},
		"as TDX":                  {Platform: measure.AzTDXvTPM, Data: good.Data},
		"version 3":               change(good, set(3, "version")),
		"version -1":              change(good, set(-1, "version")),
		"version in text":         change(good, set("2", "version")),
		"null as version":         change(good, set(nil, "version")),
		"no quote":                change(good, set(nil, "tpm_quote")),
		"quote in base64":         change(good, set("/1RD", "tpm_quote", "message")),
		"empty quote":             change(good, set("", "tpm_quote", "message")),
		"another statement":       change(good, set("ff54434780170000", "tpm_quote", "message")),
		"long signature":          change(good, set(strings.Repeat("00", maxSignature+1), "tpm_quote", "signature")),
		"no PCRs":                 change(good, set(nil, "tpm_quote", "pcrs")),
		"PCRs in a text":          change(good, set("00", "tpm_quote", "pcrs")),
		"a PCR of 65 bytes":       change(good, set([]string{strings.Repeat("00", 65)}, "tpm_quote", "pcrs")),
		"a PCR not in hex":        change(good, set([]string{"xx"}, "tpm_quote", "pcrs")),
		"no HCL report":           change(good, set(nil, "hcl_report")),
		"HCL report unpadded":     change(good, set("QQ", "hcl_report")),
		"another HCL report":      change(good, set("QUFB", "hcl_report")),
		"no VCEK":                 change(good, func(m map[string]any) { delete(m, "vcek") }),
		"log in base64 for URLs":  change(good, set("_-_-", "cc_eventlog")),
		"empty log":               change(good, set("", "cc_eventlog")),
		"version 0 with a text":   change(old, set("00", "quote", "message")),
		"version 0 with 256":      change(old, set([]int{256}, "quote", "signature")),
		"version 0 with -1":       change(old, set([]int{-1}, "quote", "signature")),
		"version 0 with a long":   change(old, set(make([]int, maxHCL+1), "report")),
		"version 0, VCEK in text": change(old, set("VCEK", "vcek")),
		"version 0, a key":        change(old, set("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "vcek")),
	} {
		if _, err := ParseEvidence(ev); err == nil {
			t.Errorf("%s is accepted", name)
		}
		got, err := l.verifier(true).Verify(t.Context(), ev, expected())
		if err == nil || got.Checks != nil {
			t.Errorf("%s: verdict %+v, %v", name, got, err)
		}
	}
	// As many PCRs as there are would be too many to report.
	many := change(good, set(slices.Repeat([]string{"00"}, 1<<12), "tpm_quote", "pcrs"))
	if e, err := ParseEvidence(many); err != nil || len(e.PCRs) != tpm.PCRs+1 {
		t.Errorf("%v", err)
	}
}

func TestParseHCLRefuses(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	good := l.evidence().HCL.Marshal()
	const at = headerSize + hardwareSize
	put := func(offset int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[offset:], v)
			return b
		}
	}
	for name, change := range map[string]func([]byte) []byte{
		"magic": put(0, 0), "version 0": put(4, 0), "version 3": put(4, 3), "report size": put(8, 1), "reserved": put(28, 1),
		"data size": put(at, 1), "runtime version": put(at+4, 2), "type of another hardware": put(at+8, 3), "hash type 0": put(at+12, 0),
		"hash type 4": put(at+12, 4), "length of the data": put(at+16, 1), "all of them": put(at+16, 0xffffffff),
		"nothing": func([]byte) []byte { return nil }, "cut": func(b []byte) []byte { return b[:len(b)-1] },
		"short":      func(b []byte) []byte { return b[:at+runtimeFixed-1] },
		"more":       func(b []byte) []byte { return append(b, 1) },
		"much more":  func(b []byte) []byte { return append(b, make([]byte, maxHCL)...) },
		"more after": func(b []byte) []byte { return append(b, 0, 0, 1) },
	} {
		if _, err := ParseHCL(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	padded := append(bytes.Clone(good), make([]byte, 100)...)
	if h, err := ParseHCL(padded); err != nil || !bytes.Equal(h.Marshal(), padded) {
		t.Errorf("zeros after the end: %v", err)
	}
}

func TestParseRuntimeDataRefuses(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	good := string(l.sim.runtimeData(measure.ReportData{}))
	if _, err := ParseRuntimeData([]byte(good)); err != nil {
		t.Fatal(err)
	}
	ak, _, _ := strings.Cut(strings.TrimPrefix(good, `{"keys":[`), "]},")
	for name, text := range map[string]string{
		"nothing": "", "a list": "[]", "no keys": "{}", "no AK": strings.Replace(good, attestationKey, "HCLEkPub", 1),
		"two AKs":           strings.Replace(good, `"keys":[`, `"keys":[`+ak+"]},", 1),
		"keys twice":        strings.Replace(good, `"keys"`, `"keys":[],"keys"`, 1),
		"a member twice":    strings.Replace(good, `"vm-configuration"`, `"vm-configuration":{},"vm-configuration"`, 1),
		"an EC key":         strings.Replace(good, `"RSA"`, `"EC"`, 1),
		"a key to decrypt":  strings.Replace(good, `"sign"`, `"encrypt"`, 1),
		"no exponent":       strings.Replace(good, `"AQAB"`, `""`, 1),
		"a long exponent":   strings.Replace(good, `"AQAB"`, `"AQABAQAB"`, 1),
		"modulus in base64": strings.Replace(good, `"n":"`, `"n":"+/`, 1),
		"short user data":   strings.Replace(good, `"user-data":"00`, `"user-data":"`, 1),
		"user data a list":  strings.Replace(good, `"user-data":"`, `"user-data":["`, 1),
		"user data not hex": strings.Replace(good, `"user-data":"0`, `"user-data":"x`, 1),
		"configuration":     strings.Replace(good, `"vm-configuration":{`, `"vm-configuration":1,"x":{`, 1),
		"too many keys":     strings.Replace(good, `"keys":[`, `"keys":[`+strings.Repeat("{},", maxKeys), 1),
		"a key not a key":   strings.Replace(good, `"keys":[`, `"keys":[1,`, 1),
		"bytes after it":    good + "x",
	} {
		if text == good {
			t.Fatalf("%s changes nothing", name)
		}
		if _, err := ParseRuntimeData([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A modulus of 1024 bits is whatever it is: no signature under it counts.
func TestShortAK(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	e := l.evidence()
	text := string(e.HCL.RuntimeData)
	at := strings.Index(text, `"n":"`) + len(`"n":"`)
	end := at + strings.IndexByte(text[at:], '"')
	l.runtime(e, []byte(text[:at]+text[at:at+171]+"A"+text[end:]), true)
	_, err := l.verify(e, expected())
	checkFailed(t, err, measure.CheckSignature)
	if !strings.Contains(err.Error(), "1024 bits") && !strings.Contains(err.Error(), "bits is not accepted") {
		t.Errorf("%v", err)
	}
}

func FuzzParseHCL(f *testing.F) {
	seed := HCLReport{Version: 1, Type: ReportSNP, Hash: tpm.Bank, RuntimeData: []byte("{}"), Padding: 3}
	f.Add(seed.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := ParseHCL(raw)
		if err != nil {
			return
		}
		if got := h.Marshal(); !bytes.Equal(got, raw) {
			t.Fatalf("accepted %x but it means %x", raw, got)
		}
	})
}

func FuzzParseRuntimeData(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"AQAB"}],"vm-configuration":{},"user-data":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRuntimeData(raw)
		if err == nil && (r.AK == nil || r.UserData != nil && len(r.UserData) != 64) {
			t.Fatalf("accepted %q as %+v", raw, r)
		}
	})
}

// What is accepted reads the same after it was written again.
func FuzzParseEvidence(f *testing.F) {
	hcl := HCLReport{Version: 1, Type: ReportSNP, Hash: tpm.Bank, RuntimeData: []byte("{}")}
	message := (&tpm.Quote{ExtraData: []byte("x"), Selection: []tpm.Selection{tpm.AllPCRs(tpm.Bank)}, Digest: make([]byte, 32)}).Marshal()
	e := Evidence{
		Platform: measure.AzSNPvTPM, Version: 2, Message: message, Signature: []byte{1}, PCRs: [][]byte{make([]byte, 32)},
		HCL: &hcl, VCEK: []byte{1}, TDQuote: []byte{1}, EventLog: []byte{1},
	}
	ev, err := e.Wire()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, []byte(ev.Data))
	f.Add(false, []byte(ev.Data))
	f.Add(false, []byte(`{"tpm_quote":{"message":[`+strings.Trim(strings.ReplaceAll(hex.EncodeToString(message[:4]), "f", "1"), "f")+`],"pcrs":[[0]]}}`))
	f.Fuzz(func(t *testing.T, onSNP bool, raw []byte) {
		ev := measure.Evidence{Platform: measure.AzTDXvTPM, Data: raw}
		if onSNP {
			ev.Platform = measure.AzSNPvTPM
		}
		e, err := ParseEvidence(ev)
		if err != nil {
			return
		}
		again, err := e.Wire()
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseEvidence(again)
		if err != nil {
			t.Fatalf("%q is accepted, and as %s refused: %v", raw, again.Data, err)
		}
		b.Version = e.Version // version 0 is written as 1
		if w, err := b.Wire(); err != nil || !bytes.Equal(w.Data, again.Data) || b.Quote.Marshal() == nil {
			t.Fatalf("%q reads otherwise when written again", raw)
		}
	})
}
