package snp

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func wire(t testing.TB, e *Evidence) measure.Evidence {
	t.Helper()
	w, err := e.Wire()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func patternEvidence(t testing.TB, version uint32, family uint8) *Evidence {
	t.Helper()
	r, err := ParseReport(pattern(version, family))
	if err != nil {
		t.Fatal(err)
	}
	return &Evidence{Report: r, Certificates: []Certificate{
		{Type: CertVCEK, Data: []byte{48, 130, 0, 255}},
		{Type: CertASK, Data: []byte{}},
		{Type: CertOther, UUID: "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6", Data: []byte{1}},
	}}
}

func TestEvidenceBothDirections(t *testing.T) {
	for version := uint32(2); version <= 5; version++ {
		for _, family := range []uint8{familyZen3, familyZen5} {
			e := patternEvidence(t, version, family)
			got, err := ParseEvidence(wire(t, e))
			if err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			if !bytes.Equal(got.Report.Marshal(), e.Report.Marshal()) || !reflect.DeepEqual(got.Certificates, e.Certificates) {
				t.Errorf("v%d came back different", version)
			}
		}
	}
}

// The exact text of the wire, as the sev crate writes it: kbs-protocol 16.2.
func TestEvidenceText(t *testing.T) {
	list := func(n int, v string) string { return "[" + strings.Repeat(v+",", n-1) + v + "]" }
	const tcb = `{"fmc":null,"bootloader":10,"tee":0,"snp":23,"microcode":25}`
	want := `{"attestation_report":{"version":3,"guest_svn":0,"policy":18446744073709551615,"family_id":` + list(16, "0") + `,"image_id":` + list(16, "0") +
		`,"vmpl":0,"sig_algo":1,"current_tcb":` + tcb + `,"plat_info":37,"key_info":0,"report_data":` + list(64, "1") + `,"measurement":` + list(48, "0") +
		`,"host_data":` + list(32, "0") + `,"id_key_digest":` + list(48, "0") + `,"author_key_digest":` + list(48, "0") + `,"report_id":` + list(32, "0") +
		`,"report_id_ma":` + list(32, "255") + `,"reported_tcb":` + tcb + `,"cpuid_fam_id":25,"cpuid_mod_id":160,"cpuid_step":2,"chip_id":` + list(64, "7") +
		`,"committed_tcb":` + tcb + `,"current":{"major":1,"minor":55,"build":40},"committed":{"major":1,"minor":55,"build":39},"launch_tcb":` + tcb +
		`,"launch_mit_vector":null,"current_mit_vector":null,"signature":{"r":` + list(72, "2") + `,"s":` + list(72, "3") + `}}` +
		`,"cert_chain":[{"cert_type":"VCEK","data":[48,130]},{"cert_type":{"OTHER":"u"},"data":[]}]}`
	e, err := ParseEvidence(measure.Evidence{Platform: measure.SNP, Data: json.RawMessage(want)})
	if err != nil {
		t.Fatal(err)
	}
	r := e.Report
	if r.Policy != math.MaxUint64 || r.Committed.Build != 39 || r.ChipID[63] != 7 || r.ReportedTCB != (TCB{10, 0, 0, 0, 0, 0, 23, 25}) || r.CPUModel != 160 {
		t.Errorf("report %+v", r)
	}
	if got := string(wire(t, e).Data); got != want {
		t.Errorf("written as\n%s\nwant\n%s", got, want)
	}
}

func TestEvidenceForms(t *testing.T) {
	good := string(wire(t, patternEvidence(t, 3, familyZen3)).Data)
	v5 := string(wire(t, patternEvidence(t, 5, familyZen3)).Data)
	replace := func(before, after string) string {
		out := strings.Replace(good, before, after, 1)
		if out == good {
			t.Fatalf("%q is not in the evidence", before)
		}
		return out
	}
	chain := good[strings.Index(good, `,"cert_chain"`) : len(good)-1]
	family := good[strings.Index(good, `"family_id":`):strings.Index(good, `,"image_id"`)]
	report := good[strings.Index(good, `"attestation_report"`):strings.Index(good, `,"cert_chain"`)]
	for _, c := range []struct{ name, in, want string }{
		{"as written", good, ""},
		{"space around", " \n" + strings.ReplaceAll(good, ",", " ,\t ") + "\n", ""},
		{"no chain", replace(chain, ""), ""},
		{"chain is null", replace(chain, `,"cert_chain":null`), ""},
		{"chain is empty", replace(chain, `,"cert_chain":[]`), ""},
		{"unknown members", replace(`"vmpl"`, `"later":{"a":[1]},"vmpl"`), ""},
		{"mitigations left out", strings.Replace(replace(`"launch_mit_vector":null,`, ""), `"current_mit_vector":null,`, "", 1), ""},
		{"fmc left out", replace(`"fmc":null,`, ""), ""},

		{"data after", good + "x", "data after the end"},
		{"object after", good + "{}", "data after the end"},
		{"cut", good[:len(good)-1], "ends too early"},
		{"empty", "", "not an object"},
		{"a list", "[]", "not an object"},
		{"null", "null", "not an object"},
		{"no report", replace(report, `"x":1`), "attestation_report: missing"},
		{"report is null", replace(report, `"attestation_report":null`), "not an object"},
		{"member twice", replace(`"vmpl"`, `"policy":1,"vmpl"`), `duplicate member "policy"`},
		{"report twice", replace(`,"cert_chain"`, `,"attestation_report":{},"cert_chain"`), "duplicate member"},
		{"tcb member twice", replace(`"bootloader"`, `"snp":1,"bootloader"`), "duplicate member"},
		{"member missing", replace(`"vmpl":`, `"VMPL":`), "vmpl: missing"},
		{"tcb missing", replace(`"launch_tcb":`, `"x":`), "launch_tcb: missing"},
		{"version too large", replace(`"version":3`, `"version":4294967299`), "32 bits"},
		{"version unknown", replace(`"version":3`, `"version":7`), "not one of 2 to 5"},
		{"policy as float", replace(`"policy":2031927`, `"policy":2031927.0`), "64 bits"},
		{"policy as exponent", replace(`"policy":2031927`, `"policy":1e3`), "64 bits"},
		{"policy negative", replace(`"policy":2031927`, `"policy":-1`), "64 bits"},
		{"policy as text", replace(`"policy":2031927`, `"policy":"2031927"`), "64 bits"},
		{"policy beyond 64 bits", replace(`"policy":2031927`, `"policy":18446744073709551616`), "64 bits"},
		{"array short", replace(`"family_id":[`, `"x":[`), "family_id: missing"},
		{"array too long", replace(`"family_id":[`, `"family_id":[1,`), "longer than 16"},
		{"array too short", replace(family, `"family_id":[1,2]`), "2 bytes, want 16"},
		{"array as base64", replace(family, `"family_id":"AAAAAAAAAAAAAAAAAAAAAA=="`), "list of numbers"},
		{"array of 256", replace(family, `"family_id":[256]`), "0 to 255"},
		{"array of floats", replace(family, `"family_id":[1.5]`), "0 to 255"},
		{"array of negatives", replace(family, `"family_id":[-1]`), "0 to 255"},
		{"array of arrays", replace(family, `"family_id":[[1],[2]]`), "0 to 255"},
		{"array of texts", replace(family, `"family_id":["1"]`), "0 to 255"},
		{"array is null", replace(family, `"family_id":null`), "list of numbers"},
		{"fmc on Genoa", replace(`"fmc":null`, `"fmc":1`), "Turin only"},
		{"mitigations in version 3", replace(`"launch_mit_vector":null`, `"launch_mit_vector":1`), "does not exist"},
		{"no CPU in version 3", replace(`"cpuid_fam_id":25`, `"cpuid_fam_id":null`), "8 bits"},
		{"CPU in version 2", replace(`"version":3`, `"version":2`), "does not exist"},
		{"mitigation beyond 64 bits", strings.Replace(v5, `"current_mit_vector":`, `"current_mit_vector":9`, 1), "64 bits"},
		{"chain is an object", replace(chain, `,"cert_chain":{}`), "not a list"},
		{"entry is a number", replace(chain, `,"cert_chain":[1]`), "not an object"},
		{"unknown type", replace(`"ASK"`, `"ASVK"`), `"ASVK" is not known`},
		{"OTHER without uuid", replace(`"ASK"`, `"OTHER"`), "not known"},
		{"type is a number", replace(`"ASK"`, `1`), "not a string"},
		{"OTHER with more", replace(`{"OTHER":`, `{"x":1,"OTHER":`), "must be"},
		{"a second VCEK", replace(`"ASK"`, `"VCEK"`), "a second VCEK"},
		{"data missing", replace(`"data":[48,130,0,255]`, `"dat":[1]`), "data: missing"},
		{"too many entries", replace(chain, `,"cert_chain":[`+strings.Repeat(`{"cert_type":"Empty","data":[]},`, maxCertificates)+`{"cert_type":"Empty","data":[]}]`), "at most 16"},
		{"large certificate", replace(`[48,130,0,255]`, `[`+strings.Repeat("1,", maxCertificateSize)+`1]`), "longer than 65536"},
		{"too large", good + strings.Repeat(" ", MaxEvidenceSize), "at most 1048576"},
		{"deep", strings.Repeat("[", 1<<18), "not an object"},
		{"deep inside", replace(`"vmpl":`, `"x":`+strings.Repeat("[", 1<<18)+`,"vmpl":`), "nested deeper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseEvidence(measure.Evidence{Platform: measure.SNP, Data: json.RawMessage(c.in)})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestWireRefusesWhatItCannotSay(t *testing.T) {
	e := patternEvidence(t, 3, familyZen3)
	e.Report.CurrentTCB[3] = 1
	if w, err := e.Wire(); err == nil {
		t.Errorf("written as %s", w.Data)
	}
}

func FuzzParseEvidence(f *testing.F) {
	for version := uint32(2); version <= 5; version++ {
		f.Add([]byte(wire(f, patternEvidence(f, version, familyZen3)).Data))
		f.Add([]byte(wire(f, patternEvidence(f, version, familyZen5)).Data))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(measure.Evidence{Platform: measure.SNP, Data: b})
		if err != nil {
			return
		}
		w, err := e.Wire()
		if err != nil {
			t.Fatalf("accepted but has no wire form: %v", err)
		}
		again, err := ParseEvidence(w)
		if err != nil {
			t.Fatalf("accepted but not a second time: %v", err)
		}
		same := slices.EqualFunc(e.Certificates, again.Certificates, func(a, b Certificate) bool {
			return a.Type == b.Type && a.UUID == b.UUID && bytes.Equal(a.Data, b.Data)
		})
		if !same || !bytes.Equal(e.Report.Marshal(), again.Report.Marshal()) {
			t.Fatalf("%s means something else the second time", b)
		}
		if r, err := ParseReport(e.Report.Marshal()); err != nil || *r != *e.Report {
			t.Fatalf("the report in %s is none: %v", b, err)
		}
	})
}
