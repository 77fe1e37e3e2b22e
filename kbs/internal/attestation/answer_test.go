package attestation

import (
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

const (
	keyText = `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"x","y":"y"}`
	newForm = `{"init-data":null,"runtime-data":{"nonce":"theirs","tee-pubkey":` + keyText + `},"tee-evidence":{"primary_evidence":{"a":1},"additional_evidence":"{}"}}`
	oldForm = `{"tee-pubkey":` + keyText + `,"tee-evidence":{"a":1}}`
	oldest  = `{"tee-pubkey":` + keyText + `,"tee-evidence":"{\"a\":1}"}`
)

// kbs-protocol 3.3 and 3.7: each version has its form, and no form is taken for
// another's.
func TestAnswerForms(t *testing.T) {
	for name, c := range map[string]struct {
		version, body string
		nonce, want   string // want is the evidence, "" for a refusal
	}{
		"0.4.0":                        {"0.4.0", newForm, "theirs", `{"a":1}`},
		"0.4.0 in the old form":        {"0.4.0", oldForm, "", ""},
		"0.4.0 in both forms":          {"0.4.0", newForm[:len(newForm)-1] + `,"tee-pubkey":{}}`, "", ""},
		"0.2.0":                        {"0.2.0", oldForm, "ours", `{"a":1}`},
		"0.2.0 in the new form":        {"0.2.0", newForm, "", ""},
		"0.2.0 in both forms":          {"0.2.0", oldForm[:len(oldForm)-1] + `,"runtime-data":{"nonce":"theirs"}}`, "", ""},
		"0.2.0 without evidence":       {"0.2.0", `{"tee-pubkey":` + keyText + `}`, "", ""},
		"0.2.0 without key":            {"0.2.0", `{"tee-evidence":{}}`, "", ""},
		"0.2.0 with key null":          {"0.2.0", `{"tee-pubkey":null,"tee-evidence":{}}`, "", ""},
		"0.2.0 with a string":          {"0.2.0", oldest, "ours", `"{\"a\":1}"`},
		"0.1.1":                        {"0.1.1", oldForm, "ours", `{"a":1}`},
		"0.1.0":                        {"0.1.0", oldest, "ours", `{"a":1}`},
		"0.1.0 with a value":           {"0.1.0", oldForm, "", ""},
		"0.1.0 with no JSON":           {"0.1.0", `{"tee-pubkey":` + keyText + `,"tee-evidence":"{"}`, "", ""},
		"0.1.0 with a repeated name":   {"0.1.0", `{"tee-pubkey":` + keyText + `,"tee-evidence":"{\"a\":1,\"a\":2}"}`, "", ""},
		"0.1.0 with a null":            {"0.1.0", `{"tee-pubkey":` + keyText + `,"tee-evidence":null}`, "", ""},
		"0.2.0 repeated":               {"0.2.0", `{"tee-pubkey":{},"tee-pubkey":{},"tee-evidence":{}}`, "", ""},
		"0.4.0 list":                   {"0.4.0", `[]`, "", ""},
		"0.2.0 list":                   {"0.2.0", `[]`, "", ""},
		"0.4.0 evidence of wrong type": {"0.4.0", `{"runtime-data":{},"tee-evidence":[]}`, "", ""},
	} {
		got, err := parseAnswer(challenge.Challenge{Version: c.version, Nonce: "ours"}, []byte(c.body))
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (string(got.TEEEvidence.PrimaryEvidence) != c.want || got.RuntimeData.Nonce != c.nonce || got.RuntimeData.TEEPubKey.X != "x") {
			t.Errorf("%s: %+v", name, got)
		}
		if strings.Contains(name, "form") && !errors.Is(err, errForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDevices(t *testing.T) {
	names := func(ds []device) string {
		var out []string
		for _, d := range ds {
			out = append(out, d.platform+"="+string(d.evidence))
		}
		return strings.Join(out, " ")
	}
	for text, want := range map[string]string{
		``:                                   "",
		`{"nvidia":{"x":[1]}}`:               `nvidia={"x":[1]}`,
		`{"tpm":1,"nvidia":2,"nvidiadpu":3}`: `nvidia=2 nvidia-dpu=3 tpm=1`,
	} {
		if got, err := parseDevices(text, "snp"); err != nil || names(got) != want {
			t.Errorf("%s: %s, %v", text, names(got), err)
		}
	}
	many := `{`
	for i := range 20 {
		many += `"nvidia` + string(rune('a'+i)) + `":1,`
	}
	for name, text := range map[string]string{
		"no object": `[]`, "a string": `"x"`, "null": `null`, "empty object": `{}`, "space": ` `, "broken": `{"nvidia":`, "trailing": `{"nvidia":1}{}`,
		"unknown name": `{"gpu":1}`, "other case": `{"NVIDIA":1}`, "twice": `{"nvidia":1,"nvidia":2}`,
		"under two names": `{"nvidia-dpu":1,"nvidiadpu":2}`, "the CPU again": `{"snp":1}`, "many": many + `"tpm":1}`,
		"deep": `{"nvidia":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		if got, err := parseDevices(text, "snp"); err == nil {
			t.Errorf("%s: %s", name, names(got))
		}
	}
}

func TestSubmodNames(t *testing.T) {
	verdicts := func(classes ...string) []measure.Verdict {
		var out []measure.Verdict
		for _, c := range classes {
			out = append(out, measure.Verdict{Class: c})
		}
		return out
	}
	got, err := submodNames(verdicts("cpu", "gpu", "switch", "gpu", "cpu"))
	if err != nil || strings.Join(got, " ") != "cpu0 gpu0 switch0 gpu1 cpu1" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := submodNames(verdicts("gpu")); err == nil {
		t.Errorf("a device alone: %v", got)
	}
}

// kbs-protocol 3.2 and 3.5.
func TestChooseHash(t *testing.T) {
	for name, c := range map[string]struct {
		platform  string
		supported []string
		want      string
		told      bool
	}{
		"no list":             {"snp", nil, "sha384", false},
		"all":                 {"snp", []string{"sha256", "sha384", "sha512", "sm3"}, "sha384", false},
		"case":                {"snp", []string{"SHA384"}, "sha384", false},
		"without sha384":      {"snp", []string{"sha256", "sha512"}, "sha512", true},
		"weakest":             {"snp", []string{"sha256"}, "sha256", true},
		"nothing we have":     {"snp", []string{"sm3", ""}, "", false},
		"se, no list":         {"se", nil, "sha512", false},
		"se":                  {"se", []string{"sha256", "sha512"}, "sha512", true},
		"se without its hash": {"se", []string{"sha384"}, "", false},
	} {
		got, told, err := chooseHash(c.platform, c.supported)
		if got != c.want || told != c.told || (err == nil) != (c.want != "") {
			t.Errorf("%s: %s, %v, %v", name, got, told, err)
		}
	}
}

func TestSelectors(t *testing.T) {
	for raw, want := range map[string]string{
		`""`: "", `{}`: "", `null`: "", ``: "", `5`: "", `"x"`: "", `[]`: "",
		`{"attestation-policy-selector":"a"}`: "a", `{"policy-selector":"b"}`: "b", `{"id":"c"}`: "c", `{"id":"c","policy-selector":"c"}`: "c",
	} {
		p, err := parseParams([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.selector(); err != nil || got != want {
			t.Errorf("%s selects %q, want %q: %v", raw, got, want, err)
		}
	}
	if p, err := parseParams([]byte(`{"id":"a","policy-selector":"b"}`)); err != nil {
		t.Error(err)
	} else if got, err := p.selector(); err == nil {
		t.Errorf("two selections are %q", got)
	}
	if _, err := parseParams([]byte(`{"id":5}`)); err == nil {
		t.Error("a number selects")
	}
}

// FuzzAnswer reads arbitrary answers in every version.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{newForm, oldForm, oldest, `{`, `{"tee-evidence":{"additional_evidence":"{\"nvidia\":{}}"}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, v := range []string{"0.1.0", "0.1.1", "0.2.0", "0.4.0"} {
			a, err := parseAnswer(challenge.Challenge{Version: v, Nonce: "ours"}, []byte(body))
			if err != nil {
				continue
			}
			if v != "0.4.0" && (a.RuntimeData.Nonce != "ours" || a.InitData != nil || a.TEEEvidence.AdditionalEvidence != "") {
				t.Fatalf("%s: %+v", v, a)
			}
			if ds, err := parseDevices(a.TEEEvidence.AdditionalEvidence, "snp"); err == nil && len(ds) > maxDevices {
				t.Fatalf("%d devices", len(ds))
			}
		}
	})
}
