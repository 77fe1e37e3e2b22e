package sample

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func digest(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString("c97fc717bffcdca39b3485d4019c1de4133fc9622ba484e947b417b83ffbae1abbf11747fdebdecaaabc5b407be66821")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pair(t testing.TB, p measure.Platform) (Attester, Verifier) {
	t.Helper()
	a, err := NewAttester(p)
	if err != nil {
		t.Fatal(err)
	}
	v, err := UnsafeVerifier(p)
	if err != nil {
		t.Fatal(err)
	}
	return a, v
}

// The forms of kbs-protocol 16.1 and vector 1 of 19: the digest is not filled up.
func TestEvidenceAndClaims(t *testing.T) {
	const data = "yX/HF7/83KObNIXUAZwd5BM/yWIrpITpR7QXuD/7rhq78RdH/eveyqq8W0B75mgh"
	for p, c := range map[measure.Platform]struct{ evidence, class, claims string }{
		measure.Sample: {
			`{"svn":"1","report_data":"` + data + `"}`, "cpu",
			`{"debug":false,"init_data":"AQI=","launch_digest":"abcde","platform_version":{"major":1,"minor":4},"report_data":"` + data + `","svn":"1"}`,
		},
		measure.SampleDevice: {`{"svn":"2","report_data":"` + data + `"}`, "gpu", `{"report_data":"` + data + `","svn":"2"}`},
	} {
		a, v := pair(t, p)
		ev, err := measure.EvidenceOver(t.Context(), a, digest(t))
		if err != nil || string(ev.Data) != c.evidence || ev.Platform != p || a.Platform() != p || v.Platform() != p {
			t.Errorf("%s: %s, %v", p, ev.Data, err)
		}
		verdict, err := v.Verify(t.Context(), ev, measure.Expected{ReportData: measure.BoundTo(digest(t)), InitData: measure.BoundTo([]byte{1, 2})})
		if err != nil {
			t.Fatal(err)
		}
		claims, err := json.Marshal(verdict.Claims)
		if err != nil || string(claims) != c.claims || verdict.Class != c.class || verdict.Platform != p {
			t.Errorf("%s: %s %s, %v", p, verdict.Class, claims, err)
		}
		if !verdict.Root.Simulated || verdict.Root.Name != RootName {
			t.Errorf("%s passes for genuine: %+v", p, verdict.Root)
		}
		for _, k := range []measure.CheckName{measure.CheckSignature, measure.CheckChain, measure.CheckInitData} {
			if verdict.Check(k).Outcome != measure.Waived {
				t.Errorf("%s: %s is %s", p, k, verdict.Check(k).Outcome)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	a, v := pair(t, measure.Sample)
	good, err := a.EvidenceOver(t.Context(), digest(t))
	if err != nil {
		t.Fatal(err)
	}
	want := measure.Expected{ReportData: measure.BoundTo(digest(t)), InitData: measure.NotPresented()}
	padded, err := measure.NewReportData(digest(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data string
		want measure.Expected
		err  error // nil means a failed binding
	}{
		"another digest":  {string(good.Data), measure.Expected{ReportData: measure.BoundTo([]byte("x")), InitData: measure.NotPresented()}, nil},
		"nothing wanted":  {string(good.Data), measure.Expected{ReportData: measure.NotPresented(), InitData: measure.NotPresented()}, nil},
		"nobody decided":  {string(good.Data), measure.Expected{}, measure.ErrUnset},
		"filled up":       {`{"svn":"1","report_data":"` + base64.StdEncoding.EncodeToString(padded[:]) + `"}`, want, nil},
		"empty":           {`{}`, want, ErrEvidence},
		"null":            {`null`, want, ErrEvidence},
		"list":            {`[]`, want, ErrEvidence},
		"truncated":       {`{"svn":"1"`, want, ErrEvidence},
		"repeated":        {`{"svn":"1","report_data":"AA==","report_data":"AQ=="}`, want, ErrEvidence},
		"number":          {`{"svn":1,"report_data":"AA=="}`, want, ErrEvidence},
		"without padding": {`{"svn":"1","report_data":"AA"}`, want, ErrEvidence},
		"url alphabet":    {`{"svn":"1","report_data":"__8="}`, want, ErrEvidence},
		"line break":      {`{"svn":"1","report_data":"AA\n=="}`, want, ErrEvidence},
		"65 bytes":        {`{"svn":"1","report_data":"` + base64.StdEncoding.EncodeToString(make([]byte, 65)) + `"}`, want, ErrEvidence},
		"long svn":        {`{"svn":"` + strings.Repeat("1", maxSVN+1) + `","report_data":"AA=="}`, want, ErrEvidence},
	} {
		_, err := v.Verify(t.Context(), measure.Evidence{Platform: measure.Sample, Data: json.RawMessage(c.data)}, c.want)
		var failed *measure.VerificationError
		if c.err != nil && !errors.Is(err, c.err) || c.err == nil && (!errors.As(err, &failed) || !failed.Has(measure.CheckBinding)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Verify(t.Context(), measure.Evidence{Platform: measure.SampleDevice, Data: good.Data}, want); !errors.Is(err, ErrEvidence) {
		t.Errorf("a device's evidence: %v", err)
	}
	if _, err := v.Verify(t.Context(), good, measure.Expected{ReportData: measure.UnsafeUnbound("test"), InitData: measure.NotPresented()}); err != nil {
		t.Errorf("waived: %v", err)
	}
	if _, err := NewAttester(measure.SNP); err == nil {
		t.Error("an attester of another platform")
	}
	if _, err := UnsafeVerifier(measure.SNP); err == nil {
		t.Error("a verifier of another platform")
	}
	if _, err := measure.EvidenceOver(t.Context(), a, make([]byte, 65)); err == nil {
		t.Error("65 bytes of digest")
	}
}

// FuzzVerify accepts only evidence over the digest that was asked for.
func FuzzVerify(f *testing.F) {
	a, v := pair(f, measure.Sample)
	good, err := a.EvidenceOver(f.Context(), digest(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good.Data))
	f.Add([]byte(`{"svn":"","report_data":"AA=="}`))
	f.Add([]byte(`{"svn":[[[[`))
	want := measure.Expected{ReportData: measure.BoundTo(digest(f)), InitData: measure.NotPresented()}
	f.Fuzz(func(t *testing.T, raw []byte) {
		verdict, err := v.Verify(t.Context(), measure.Evidence{Platform: measure.Sample, Data: raw}, want)
		if err == nil && (!json.Valid(raw) || verdict.Claims["report_data"] != base64.StdEncoding.EncodeToString(digest(t))) {
			t.Fatalf("accepted %s", raw)
		}
	})
}
